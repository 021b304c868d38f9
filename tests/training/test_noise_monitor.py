"""The warning for noise that does not reach the model, and silence otherwise."""

import math
import warnings

import pytest
import torch
from architectures import text

from neft_zoo import SFTTrainer, attach
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Linear
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.noise_monitor import PATIENCE, rounding_limit_db

IDS = torch.arange(3, 51).view(2, 24)
BATCH = {"input_ids": IDS, "labels": IDS.clone()}
ZERO = "although neft_prompt has a strength above 0"
DROWNS = r"noise/snr_db is \d+: rounding to bfloat16 leaves more than half of the coordinates .* token_relative"


def warned(model, noise, steps=PATIENCE + 2, batch=BATCH, total=100):
    """Return our warnings of a loop, without those of noise that is too loud, as it is on so small a model."""
    with warnings.catch_warnings(record=True) as caught, attach(model, noise, total_steps=total) as handle:
        warnings.simplefilter("always")
        for _ in range(steps):
            handle.loss(batch)
    messages = [str(each.message) for each in caught]
    return [message for message in messages if message.startswith("noise/") and "louder" not in message]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_limit_is_where_half_of_the_coordinates_do_not_move(dtype):
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(200_000, generator=generator).to(dtype)
    noise = (torch.rand(200_000, generator=generator) * 2 - 1) * math.sqrt(3) * 10 ** (-rounding_limit_db(dtype) / 20)
    still = ((embeds.float() + noise).to(dtype) == embeds).float().mean()
    assert 0.45 < still < 0.6
    assert rounding_limit_db(torch.float32) == rounding_limit_db(None) == math.inf


class Nowhere:
    """No token at all."""

    def __call__(self, batch):
        return torch.zeros_like(batch.real, dtype=torch.float32)


def gemma(dtype=torch.bfloat16):
    """Return a Gemma whose embeddings come out at rms 1."""
    model = text("gemma")
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=1 / math.sqrt(32))
    return model.to(dtype)


@pytest.mark.cell("Precision", "noise that drowns in rounding: one warning")
def test_noise_below_the_rounding_warns_once():
    weak = {"name": "neft_uniform", "alpha": 0.05}
    (message,) = warned(gemma(), weak)
    assert "space='raw'" in message and "alpha" in message
    with pytest.warns(UserWarning, match=DROWNS), attach(gemma(), weak, total_steps=9) as handle:
        for _ in range(PATIENCE):
            handle.loss(BATCH)


@pytest.mark.cell("Precision", "noise that drowns in rounding: one warning")
def test_what_the_warning_advises_silences_it():
    assert not warned(gemma(), {"name": "neft_uniform", "alpha": 0.05, "space": "raw", "length": "document"}, total=1)
    assert not warned(gemma(), "neft_uniform")
    assert not warned(gemma(), "token_relative")
    assert not warned(gemma(torch.float32), {"name": "neft_uniform", "alpha": 0.05})


def test_noise_on_tokens_that_are_not_there_warns_once():
    (message,) = warned(text("llama"), "neft_prompt")
    assert ZERO in message and "neft_uniform" in message
    (message,) = warned(text("llama"), Strategy(AdditiveNoise(Uniform(), ByLength(5.0), Nowhere())))
    assert message.startswith("noise/rms is 0 although custom has")


def test_a_short_prompt_is_a_prompt():
    labels = IDS.clone()
    labels[:, :2] = -100
    assert not warned(text("llama"), "neft_prompt", batch={**BATCH, "labels": labels})


def test_one_batch_without_prompts_is_no_reason():
    some = {**BATCH, "labels": IDS.masked_fill(IDS < 10, -100)}
    handle = attach(text("llama"), "neft_prompt", total_steps=9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(2 * PATIENCE):
            handle.loss(some if step % PATIENCE == 3 else BATCH)
    messages = [str(each.message) for each in caught]
    assert not [text for text in messages if text.startswith("noise/") and "louder" not in text]


@pytest.mark.parametrize(
    "noise", ["none", "neft_uniform", {"name": "neft_uniform", "alpha": 0}, "fgm", "embedding_dropout", "hype"]
)
def test_silence_otherwise(noise):
    assert not warned(text("llama"), noise)


def test_a_schedule_is_judged_at_its_strength():
    for alpha in (Linear(0.0, 10.0), Linear(10.0, 0.0), lambda progress: 10.0 * (progress > 0.5)):
        assert not warned(gemma(), {"name": "neft_uniform", "alpha": alpha}, steps=30, total=30)
    assert len(warned(gemma(), {"name": "neft_uniform", "alpha": Linear(0.05, 0.0)})) == 1


@pytest.mark.cell("Precision", "noise that drowns in rounding: one warning")
def test_the_trainer_warns_once_per_run(llama, config, records, tokenizer):
    args = config(max_steps=PATIENCE + 4, logging_steps=2, completion_only_loss=False)
    for noise, expected in (("neft_prompt", 1), ("neft_uniform", 0)):
        trainer = SFTTrainer(llama(), args=args, train_dataset=records, processing_class=tokenizer, noise=noise)
        args.output_dir = f"{args.output_dir}-{noise}"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train()
        assert sum(ZERO in str(each.message) for each in caught) == expected


LOUD_NOISE = r"noise/snr_db is -\d+: the noise of neft_uniform is louder than the embeddings that it is added to"


def test_noise_louder_than_the_signal_warns_in_the_first_step_and_once():
    loud, quiet = ({"name": "neft_uniform", "alpha": alpha} for alpha in (500.0, 0.5))
    with pytest.warns(UserWarning, match=LOUD_NOISE) as caught, attach(text("llama"), loud, total_steps=9) as handle:
        handle.loss(BATCH)
        assert len([each for each in caught if "louder" in str(each.message)]) == 1, "before an optimizer's step"
        for _ in range(3):
            handle.loss(BATCH)
    assert len([each for each in caught if "louder" in str(each.message)]) == 1
    with warnings.catch_warnings(), attach(text("llama"), quiet, total_steps=9) as handle:
        warnings.filterwarnings("error", message=".*louder")
        handle.loss(BATCH)


def test_noise_that_a_schedule_makes_loud_later_warns_too(config, llama, tokenizer, records):
    rising = {"name": "neft_uniform", "alpha": {"schedule": "linear", "start": 0.1, "end": 5000.0}}
    trainer = SFTTrainer(
        llama(),
        args=config(max_steps=4, logging_steps=1),
        train_dataset=records,
        processing_class=tokenizer,
        noise=rising,
    )
    with pytest.warns(UserWarning, match="louder than the embeddings"):
        trainer.train()


def test_an_ascent_on_prompts_that_are_not_there_is_told(llama):
    """cat perturbs the prompt, of which data without one leave the first token."""
    (message,) = warned(llama().train(), {"name": "cat", "steps": 1})
    assert "although cat has a strength above 0: it reaches no token beyond the first of each document" in message
    prompts = {**BATCH, "labels": IDS.where(torch.arange(24) > 3, -100)}
    assert not warned(llama().train(), {"name": "cat", "steps": 1}, batch=prompts)
    assert not warned(llama().train(), {"name": "cat", "steps": 1, "eps": 0.0})
    assert not warned(llama().train(), {"name": "cat", "steps": 1, "where": "real"})
