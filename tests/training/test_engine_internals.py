"""What is relied on of accelerate, DeepSpeed and the scaling of a loss is there, and its loss is an error."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, ParallelismConfig
from accelerate.utils import DistributedType
from small_models import remove_attribute
from torch.testing._internal.distributed.fake_pg import FakeStore

from neft_zoo import NoiseError, SFTTrainer
from neft_zoo.passes.accumulation import StoredGradients
from neft_zoo.training import engine_internals as internals


@pytest.fixture
def trainer(llama, config, records, tokenizer):
    """Return an SFT trainer that is about to train."""
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 2
    return trainer


def ranks_of(sizes):
    """Return the data-parallel rank on every process of accelerate's own mesh, on torch's fake process group."""
    ranks, world = [], torch.Size(sizes.values()).numel()
    for rank in range(world):
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
        try:
            mesh = ParallelismConfig(**sizes).get_device_mesh("cpu")
            ranks.append(internals.data_parallel_rank(SimpleNamespace(device_mesh=mesh, process_index=rank)))
        finally:
            torch.distributed.destroy_process_group()
    return ranks


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "the same noise on every rank")
@pytest.mark.parametrize(
    ("sizes", "ranks"),
    [
        (dict(dp_replicate_size=2, dp_shard_size=2, tp_size=2), [0, 0, 1, 1, 2, 2, 3, 3]),
        (dict(dp_replicate_size=2, dp_shard_size=2), [0, 1, 2, 3]),
        (dict(dp_shard_size=2, tp_size=2), [0, 0, 1, 1]),
        (dict(tp_size=4), [0, 0, 0, 0]),
    ],
)
def test_tensor_parallel_ranks_agree_and_data_parallel_ranks_differ(sizes, ranks):
    assert ranks_of(sizes) == ranks


def test_without_a_mesh_every_process_has_its_own_data():
    assert internals.data_parallel_rank(SimpleNamespace(device_mesh=None, process_index=3)) == 3
    assert internals.data_parallel_rank(Accelerator(cpu=True).state) == 0


def test_whether_accelerate_compiles(trainer):
    assert not internals.is_compiled(trainer.accelerator.state)


def test_whether_a_backward_pass_takes_the_optimizers_step(trainer, monkeypatch):
    assert not internals.steps_in_backward(trainer.accelerator.state)
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.DEEPSPEED)
    assert internals.steps_in_backward(trainer.accelerator.state)


def test_a_tensor_parallel_group_counts_as_one_rank():
    ranks = SimpleNamespace(num_processes=8)
    args = SimpleNamespace(average_tokens_across_devices=True)
    trainer = SimpleNamespace(accelerator=ranks, args=args, get_tp_size=lambda: 4)
    assert internals.token_weight(trainer, 10) == pytest.approx(2 / 10)
    assert internals.token_weight(trainer, None) is None


def part_of(trainer, num_items):
    """Take a part of a step's loss as an engine does; return the gradient that reached it, and the accumulation."""
    value, accumulation = torch.tensor(3.0, requires_grad=True), internals.accumulation_of(trainer, num_items)
    accumulation.part(value * 1, [])
    return value.grad, accumulation


def test_an_engine_takes_a_part_on_the_scale_of_the_trainers_own_loss(trainer, monkeypatch):
    assert isinstance(internals.accumulation_of(trainer, None), StoredGradients)
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.FSDP)
    for num_items, share in ((torch.tensor(5), 1), (None, 2)):
        assert part_of(trainer, num_items)[0] == 1 / share
    for name in ("model_accepts_loss_kwargs", "compute_loss_func", "current_gradient_accumulation_steps"):
        with monkeypatch.context() as context, pytest.raises(NoiseError, match=name):
            remove_attribute(trainer, name, context)
            internals.accumulation_of(trainer, None)


def test_a_loss_that_an_engine_cannot_scale_any_more_is_an_error(trainer, monkeypatch):
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.FSDP)
    for factor, message in ((1.0, None), (0.1, "must not be scaled under FSDP, .* got a factor of 0.1: choose DDP.")):
        accumulation = part_of(trainer, None)[1]
        loss = accumulation.total(torch.tensor(1.0, requires_grad=True) * 1) / 2
        with nullcontext() if message is None else pytest.raises(NoiseError, match=message):
            (factor * loss).backward()
        accumulation.check()
    accumulation = part_of(trainer, None)[1]
    with pytest.raises(NoiseError, match="must be differentiated under FSDP, .*: choose DDP to skip batches."):
        accumulation.check()


class Engine:
    """What is asked of DeepSpeed's engine, and of accelerate's wrapper of it."""

    def __init__(self):
        self.engine, self.enable_backward_allreduce, self.during = self, True, []

    def scale(self, loss):
        self.during.append(self.enable_backward_allreduce)
        return 8 * loss

    def backward(self, loss, **how):
        self.how = how
        loss.backward()


def test_deepspeeds_engine_takes_no_step_and_reduces_nothing(trainer, monkeypatch):
    engine, value = Engine(), torch.tensor(3.0, requires_grad=True)
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.DEEPSPEED)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    monkeypatch.setattr(trainer.accelerator, "deepspeed_engine_wrapped", engine, raising=False)
    assert part_of(trainer, None)[0] == 1 / 2 and engine.how == {"sync_gradients": False, "scale_wrt_gas": False}
    assert internals.gradient_of(trainer)(value * 2, [value])[0] == 16
    assert engine.during == [False] and engine.enable_backward_allreduce
    monkeypatch.delattr(trainer.accelerator, "deepspeed_engine_wrapped")
    with pytest.raises(NoiseError, match="accelerate must have Accelerator.deepspeed_engine_wrapped"):
        internals.gradient_of(trainer)


def test_gradients_too_small_for_fp16_are_scaled_on_their_way(trainer, monkeypatch):
    scaler = SimpleNamespace(get_scale=lambda: 2.0**16)
    monkeypatch.setattr(trainer.accelerator, "scaler", scaler)
    value = torch.tensor(1.0, requires_grad=True)
    small = (value.half() * 1).float() * 1e-9  # below the smallest number of fp16
    assert internals.gradient_of(trainer)(small, [value])[0] == pytest.approx(1e-9, rel=1e-2)
    assert torch.autograd.grad((value.half() * 1).float() * 1e-9, value)[0] == 0


def test_deepspeed_has_the_names_of_its_engine():
    deepspeed = pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    assert hasattr(deepspeed.DeepSpeedEngine, "scale")
    assert hasattr(deepspeed.DeepSpeedEngine, "backward")
