"""Noise in a model's calls outside of a session's own loss."""

import pytest
import torch
from small_models import fitting

from neft_zoo import NoiseCallback, NoiseError, make, names
from neft_zoo.training.session import NoiseSession
from neft_zoo.training.watched_calls import several_passes, unwatch, unwatched, watch

IDS = torch.arange(5, 29).view(4, 6)


def test_a_watched_call_is_a_step_of_the_session_until_it_is_unwatched(llama):
    model = llama().train()
    clean = model(IDS).logits
    session = NoiseSession(model, make("neft_uniform"))
    watch(session, key=1, progress=0.0)
    noisy = model(IDS).logits
    assert not torch.equal(noisy, clean) and session.history.steps == 1 and session.stats.take()
    with pytest.raises(ZeroDivisionError), unwatched(session):
        assert torch.equal(model(IDS).logits, clean)
        raise ZeroDivisionError
    assert torch.equal(model(IDS).logits, noisy) and session.history.steps == 2
    watch(session, key=2, progress=0.0)
    assert not torch.equal(model(IDS).logits, noisy), "the noise is the step's"
    unwatch(session)
    assert torch.equal(model(IDS).logits, clean) and session.history.steps == 3


@pytest.mark.parametrize("name", ["symnoise", "none"])
def test_calls_stay_clean_under_a_strategy_of_several_passes_or_none(llama, name):
    model = llama().train()
    clean = model(IDS).logits
    session = NoiseSession(model, make(name))
    watch(session, key=1, progress=0.0)
    with unwatched(session):
        pass
    assert torch.equal(model(IDS).logits, clean) and not session.history.steps
    unwatch(session)


def test_what_is_more_than_noise_in_one_pass():
    more = {name for name in names() if several_passes(make(fitting(name)))}
    assert {"symnoise", "r_drop", "masked_thought"} <= more and not {"none", "neft_uniform", "hype"} & more


@pytest.mark.parametrize("noise", [dict(name="freelb", steps=1), dict(name="pgd", steps=0), dict(name="cat", steps=0)])
def test_an_ascent_of_one_pass_is_more_than_noise(llama, noise):
    """It projects its start onto the ball."""
    model = llama()
    session = NoiseSession(model, make(noise))
    clean = model(IDS).logits
    watch(session, key=1, progress=0.0)
    assert torch.equal(model(IDS).logits, clean)
    unwatch(session)
    with pytest.raises(NoiseError, match=f"is not all that '{noise['name']}' does"):
        NoiseCallback(noise)
