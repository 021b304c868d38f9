"""Every private or unstable name of another library that is relied on: it is there, and its loss is an error."""

import pytest
import torch
import transformers
import trl
from accelerate import Accelerator
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from small_models import remove_attribute
from transformers.integrations import neftune

from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer
from neft_zoo.passes import torch_internals
from neft_zoo.training import hf_internals as internals


@pytest.fixture
def trainer(llama, config, records, tokenizer):
    """Return an SFT trainer that is about to train."""
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 2
    return trainer


@pytest.mark.parametrize("library", ["torch", "trl", "python"])
def test_a_name_that_is_gone_is_one_sentence_with_library_and_version(library):
    with pytest.raises(NoiseError, match=rf"^{library} must have Thing._gone, .* got version \d+\..* constraints.txt"):
        torch_internals.read(type("Thing", (), {})(), "_gone", library)


def test_the_loss_of_trl_is_told_from_others(trainer, llama, monkeypatch):
    own = trl.SFTTrainer.compute_loss.__get__(trainer)
    assert internals.is_nll(trainer, own) and not internals.is_nll(trainer, lambda model, inputs: None)
    for name in ("compute_loss_func", "label_smoother", "aux_loss_enabled"):
        with monkeypatch.context() as context:
            context.setattr(trainer, name, lambda *_: None)
            assert not internals.is_nll(trainer, own), name
        with monkeypatch.context() as context, pytest.raises(NoiseError, match=name):
            remove_attribute(trainer, name, context)
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


def test_saved_weights_are_read_back_into_a_trainer(trainer, tmp_path, monkeypatch):
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.save_model(str(tmp_path))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    internals.load_weights(trainer, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    remove_attribute(transformers.Trainer, "_load_from_checkpoint", monkeypatch)
    with pytest.raises(NoiseError, match="transformers must have SFTTrainer._load_from_checkpoint"):
        internals.load_weights(trainer, tmp_path)


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
