"""Engines that accelerate sets up on GPUs only, on CPU: without this it goes on with DDP, or alone, without a word."""

from accelerate.state import AcceleratorState, DistributedType, PartialState


def shard_on_cpu():
    """Let accelerate set FSDP and tensor parallelism up on CPU as it does on GPUs."""
    original = AcceleratorState.__init__

    def init(self, *args, **kwargs):
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *args, **kwargs)

    AcceleratorState.__init__ = init


def deepspeed_on_cpu():
    """Give DeepSpeed, which accelerate leaves out of runs that are asked to stay on CPU, a backend in the others."""
    original = PartialState._prepare_backend
    PartialState._prepare_backend = lambda self, cpu=False, *rest: original(self, True, *rest)
