"""Every private or unstable name of another library that is relied on: it is there, and its loss is an error."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import transformers
import trl
from accelerate import Accelerator, ParallelismConfig
from accelerate.utils import DistributedType
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers.integrations import neftune

from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer
from neft_zoo.passes import torch_internals
from neft_zoo.passes.accumulation import StoredGradients
from neft_zoo.training import hf_internals as internals


@pytest.fixture
def trainer(llama, config, records, tokenizer):
    """Return an SFT trainer that is about to train."""
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 2
    return trainer


def gone(owner, name, monkeypatch):
    """Take an attribute away, from the object or its class."""
    owner = owner if name in vars(owner) else type(owner)
    monkeypatch.delattr(owner, name)


@pytest.mark.parametrize("library", ["torch", "trl", "python"])
def test_a_name_that_is_gone_is_one_sentence_with_library_and_version(library):
    with pytest.raises(NoiseError, match=rf"^{library} must have Thing._gone, .* got version \d+\..* constraints.txt"):
        torch_internals.read(type("Thing", (), {})(), "_gone", library)


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
            gone(trainer, name, context)
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


def test_the_loss_of_trl_is_told_from_others(trainer, llama, monkeypatch):
    own = trl.SFTTrainer.compute_loss.__get__(trainer)
    assert internals.is_nll(trainer, own) and not internals.is_nll(trainer, lambda model, inputs: None)
    for name in ("compute_loss_func", "label_smoother", "aux_loss_enabled"):
        with monkeypatch.context() as context:
            context.setattr(trainer, name, lambda *_: None)
            assert not internals.is_nll(trainer, own), name
        with monkeypatch.context() as context, pytest.raises(NoiseError, match=name):
            gone(trainer, name, context)
            internals.is_nll(trainer, own)
    for adapter, nll in (
        (LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"), True),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), False),
    ):
        monkeypatch.setattr(trainer, "model", get_peft_model(llama(), adapter))
        assert internals.is_nll(trainer, own) == nll


def test_the_data_set_is_named_however_the_preparation_is_called(trainer, monkeypatch):
    names = []

    class Named(SFTTrainer):
        def _prepare_dataset(self, *args, **kwargs):
            names.append(internals.name_of_dataset(self, args, kwargs))
            return super()._prepare_dataset(*args, **kwargs)

    data = trainer.train_dataset
    settings = dict(args=trainer.args, processing_class=trainer.processing_class, train_dataset=data)
    Named(trainer.model, eval_dataset={"test": data}, **settings)
    assert names == ["train", "test"]
    arguments = dict(dataset=data, processing_class=None, args=None, packing=False, formatting_func=None)
    assert internals.name_of_dataset(trainer, (), {**arguments, "dataset_name": "by keyword"}) == "by keyword"
    monkeypatch.delattr(trl.SFTTrainer, "_prepare_dataset")
    with pytest.raises(NoiseError, match="trl must have SFTTrainer._prepare_dataset"):
        internals.name_of_dataset(trainer, (), {})


def test_a_batch_is_prepared_as_the_trainer_does(trainer, monkeypatch):
    inputs = {"input_ids": torch.tensor([[1, 2]])}
    assert torch.equal(internals.prepared_inputs(trainer, inputs)["input_ids"], inputs["input_ids"])
    monkeypatch.delattr(transformers.Trainer, "_prepare_inputs")
    with pytest.raises(NoiseError, match="transformers must have SFTTrainer._prepare_inputs"):
        internals.prepared_inputs(trainer, inputs)


def test_the_fields_of_a_config_that_may_be_json(monkeypatch):
    assert "model_init_kwargs" in internals.json_fields(trl.SFTConfig)
    assert "noise" in internals.json_fields(NoiseSFTConfig)
    with pytest.raises(NoiseError, match="transformers must have dict._VALID_DICT_FIELDS"):
        internals.json_fields(dict)


def test_stock_noise_is_that_of_transformers(llama, monkeypatch):
    model = llama().train()
    embedding, ids = model.get_input_embeddings(), torch.arange(6)[None]
    clean = embedding(ids)
    with internals.StockNoise(model, 5.0, Accelerator(cpu=True)):
        torch.manual_seed(0)
        noisy = embedding(ids)
    torch.manual_seed(0)
    assert torch.equal(noisy, internals.with_stock_noise(clean, 5.0)) and not torch.equal(noisy, clean)
    assert torch.equal(embedding(ids), clean) and not hasattr(embedding, "neftune_noise_alpha")
    for name in ("activate_neftune", "deactivate_neftune"):
        with monkeypatch.context() as context, pytest.raises(NoiseError, match=name):
            context.delattr(neftune, name)
            internals.StockNoise(model, 5.0, Accelerator(cpu=True))
    monkeypatch.delattr(neftune, "neftune_post_forward_hook")
    with pytest.raises(NoiseError, match="neftune_post_forward_hook"):
        internals.with_stock_noise(clean, 5.0)


def test_hooks_of_a_module():
    module = torch.nn.Linear(2, 2)
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        assert not torch_internals.has_hooks(module)
        handle = register(lambda *_: None)
        assert torch_internals.has_hooks(module)
        handle.remove()


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_functions_that_a_model_is_checkpointed_by(llama, reentrant):
    model = llama()
    assert torch_internals.checkpoint_functions(model) == []
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    functions = torch_internals.checkpoint_functions(model)
    assert len(functions) >= 2 and all(each.keywords["use_reentrant"] == reentrant for each in functions)
    del model.model.layers[0]._gradient_checkpointing_func
    with pytest.raises(NoiseError, match="transformers must have LlamaDecoderLayer._gradient_checkpointing_func"):
        torch_internals.checkpoint_functions(model)
