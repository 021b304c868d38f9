"""Settings of a trainer under which a strategy cannot be what it says."""

from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from neft_zoo import DPOTrainer, GRPOTrainer, KTOTrainer, NoiseError, RLOOTrainer, SFTTrainer, make
from neft_zoo.training.checks import check_calls, check_engine

SEQUENCES = pytest.mark.cell("Engines, two processes", "sequence parallelism (sp_size=2)")


@pytest.mark.parametrize("size", ["cp_size", pytest.param("sp_size", marks=SEQUENCES)])
def test_split_sequences_are_refused(llama, config, records, tokenizer, monkeypatch, refused, size):
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    sizes = SimpleNamespace(**{"cp_size": 1, "sp_size": 1, size: 2})
    monkeypatch.setattr(trainer.accelerator.state, "parallelism_config", sizes)
    message = f"^{size} must be 1 with noise, which needs whole documents, got 2.$"
    with pytest.raises(NoiseError, match=message) as caught:
        check_engine(trainer.args, trainer.accelerator.state, make("neft_uniform"))
    refused(caught)
    check_engine(trainer.args, trainer.accelerator.state, make("none"))


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_weights_that_are_split_are_not_perturbed_around_a_step(llama, config, records, tokenizer, monkeypatch, kind):
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", kind)
    with pytest.raises(NoiseError, match=f"^flat_lora needs whole weights, .* got {kind.value}: choose DDP.$"):
        check_engine(trainer.args, trainer.accelerator.state, make("flat_lora"))
    check_engine(trainer.args, trainer.accelerator.state, make("noisy_tune"))


@pytest.mark.parametrize("optim", ["galore_adamw_layerwise", "apollo_adamw_layerwise", "lomo", "adalomo"])
def test_an_optimizer_that_steps_in_the_backward_pass_has_one_pass_with_clean_weights(
    llama, config, records, tokenizer, optim
):
    def trainer(noise):
        args = config(optim=optim, optim_target_modules=["q_proj"])
        return SFTTrainer(llama(), args=args, train_dataset=records, processing_class=tokenizer, noise=noise)

    for noise in ("pgd", "symnoise", "quant_noise", "sam"):
        with pytest.raises(NoiseError, match=f"^optim must step after the backward pass with {noise}, .*'{optim}'"):
            trainer(noise)
    for noise in ("neft_uniform", "masked_thought", "noisy_tune"):
        trainer(noise)


@pytest.mark.parametrize("name", ["sam", "r_drop", "stm"])
def test_split_sequences_are_refused_without_a_noise_too(llama, config, records, tokenizer, monkeypatch, name):
    trainer = SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer)
    sizes = SimpleNamespace(cp_size=2, sp_size=1)
    monkeypatch.setattr(trainer.accelerator.state, "parallelism_config", sizes)
    with pytest.raises(NoiseError, match="^cp_size must be 1 with noise"):
        check_engine(trainer.args, trainer.accelerator.state, make(name))
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.FSDP)
    if name == "sam":
        with pytest.raises(NoiseError, match="^sam needs whole weights, which it changes around a step, got FSDP"):
            check_engine(trainer.args, trainer.accelerator.state, make(name))


def unmade(cls, **attributes):
    """Return a trainer without a model, of which only the class and a few attributes are read."""
    trainer = object.__new__(cls)
    vars(trainer).update(args=SimpleNamespace(precompute_ref_log_probs=False), **attributes)
    return trainer


@pytest.mark.parametrize("name", ["mixout", "quant_noise", "flat_lora", "lora_matrix_dropout"])
def test_weights_that_change_for_a_step_are_for_the_loss_alone(name):
    """GRPO generates within a step, and DPO's reference is the policy without its adapter."""
    strategy = make(name)
    for cls in (GRPOTrainer, RLOOTrainer):
        with pytest.raises(NoiseError, match=f"^{name} changes .* {cls.__name__}, which also generates with them.$"):
            check_calls(unmade(cls), strategy, "clean", False)
    for cls in (DPOTrainer, KTOTrainer):
        check_calls(unmade(cls, ref_model=object()), strategy, "clean", True)
        if name == "lora_matrix_dropout":  # its reference has a clean base
            check_calls(unmade(cls, ref_model=None), strategy, "clean", True)
            continue
        with pytest.raises(NoiseError, match=f"got {cls.__name__}, which also takes them for its reference model.$"):
            check_calls(unmade(cls, ref_model=None), strategy, "clean", True)


@pytest.mark.parametrize("name", ["stm", "noisy_tune"])
def test_a_reference_cannot_see_the_same_without_a_noise(name):
    trainer = unmade(DPOTrainer, ref_model=object())
    with pytest.raises(NoiseError, match=f"^reference='same' needs a noise on embeddings or layers, got '{name}'.$"):
        check_calls(trainer, make(name), "same", True)
    check_calls(trainer, make("none"), "same", True)
