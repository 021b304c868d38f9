"""Which ranks draw alike, and what cannot run."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import ParallelismConfig
from accelerate.utils import DistributedType
from torch.testing._internal.distributed.fake_pg import FakeStore

from neft_zoo import NoiseError, SFTTrainer, make
from neft_zoo.training.hf_internals import check_engine, data_parallel_rank, token_weight


def ranks_of(sizes):
    """Return the data-parallel rank on every process of accelerate's own mesh, on torch's fake process group."""
    found, world = [], torch.Size(sizes.values()).numel()
    for rank in range(world):
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
        try:
            mesh = ParallelismConfig(**sizes).get_device_mesh("cpu")
            found.append(data_parallel_rank(SimpleNamespace(torch_device_mesh=mesh, process_index=rank)))
        finally:
            torch.distributed.destroy_process_group()
    return found


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
    assert data_parallel_rank(SimpleNamespace(torch_device_mesh=None, process_index=3)) == 3


SEQUENCES = pytest.mark.cell("Engines, two processes", "sequence parallelism (sp_size=2)")


@pytest.mark.parametrize("size", ["cp_size", pytest.param("sp_size", marks=SEQUENCES)])
def test_split_sequences_are_refused(llama, config, records, tokenizer, monkeypatch, refused, size):
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    sizes = SimpleNamespace(**{"cp_size": 1, "sp_size": 1, size: 2})
    monkeypatch.setattr(trainer.accelerator.state, "parallelism_config", sizes)
    message = f"^{size} must be 1 with noise, which needs whole documents, got 2.$"
    with pytest.raises(NoiseError, match=message) as caught:
        check_engine(trainer, make("neft_uniform"))
    refused(caught)
    check_engine(trainer, make("none"))


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_weights_that_are_split_are_not_perturbed_around_a_step(llama, config, records, tokenizer, monkeypatch, kind):
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", kind)
    with pytest.raises(NoiseError, match=f"^flat_lora needs whole weights, .* got {kind.value}: choose DDP.$"):
        check_engine(trainer, make("flat_lora"))
    check_engine(trainer, make("noisy_tune"))


def test_a_tensor_parallel_group_counts_as_one_rank():
    ranks = SimpleNamespace(num_processes=8)
    args = SimpleNamespace(average_tokens_across_devices=True)
    trainer = SimpleNamespace(accelerator=ranks, args=args, get_tp_size=lambda: 4)
    assert token_weight(trainer, 10) == pytest.approx(2 / 10)
