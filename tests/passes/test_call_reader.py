"""The batch of a pass, read from the model's own calls."""

import copy
import pickle

import pytest
import torch

from neft_zoo import NoiseError, make
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.hooks import ModelHooks

NEFT = make("neft_uniform").noise
IDS = torch.arange(5, 17).view(2, 6)


@pytest.fixture
def batch():
    return Batch.from_inputs({"input_ids": IDS}, key=1)


def test_a_batch_is_read_from_the_calls_of_an_open_pass_that_carries_gradients(llama, batch):
    model, seen = llama(), []
    tap = ModelHooks(model, read=lambda told: seen.append(told["input_ids"]) or batch)
    model(input_ids=IDS)
    with tap.open(NEFT, None) as done:
        with torch.no_grad():
            model(input_ids=IDS)
        assert not seen and done.batch is None
        model(input_ids=IDS)
    assert done.batch is batch and len(seen) == 1 and done.deltas


def test_every_watched_call_is_a_pass_of_its_own_until_it_is_unwatched(llama, batch):
    model, done = llama().train(), []
    hooks = ModelHooks(model, read=lambda call: batch)
    clean = model(IDS).logits
    hooks.calls.watch(NEFT, done.append)
    noisy = [model(IDS).logits for _ in range(2)]
    assert torch.equal(*noisy) and not torch.equal(noisy[0], clean)
    assert len({id(record) for record in done}) == 2 and all(record.deltas for record in done)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, clean)
    with pytest.raises(ValueError, match="input_ids"):
        model()
    assert len(done) == 2, "a call that ends in an exception is no pass"
    hooks.calls.unwatch()
    assert torch.equal(model(IDS).logits, clean) and len(done) == 2


def test_two_noises_are_not_added_to_one_call(llama, batch):
    model = llama().train()
    first, second = (ModelHooks(model, read=lambda call: batch).calls for _ in range(2))
    first.watch(NEFT, lambda record: None)
    with pytest.raises(NoiseError, match="LlamaForCausalLM must have one noise in a step, got a second one"):
        second.watch(NEFT, lambda record: None)
    first.unwatch()
    second.watch(NEFT, lambda record: None)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_watched_model_is_not_watched(llama, batch, copied):
    model, done = llama().train(), []
    clean = model(IDS).logits
    hooks = ModelHooks(model, read=lambda call: batch)
    hooks.calls.watch(NEFT, done.append)
    twin = copied(model)
    assert torch.equal(twin(IDS).logits, clean) and not done
    assert not torch.equal(model(IDS).logits, clean) and len(done) == 1
