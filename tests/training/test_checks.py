"""Settings of a trainer under which a strategy cannot be what it says."""

from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from neft_zoo import NoiseError, SFTTrainer, make
from neft_zoo.training.checks import check_engine

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
