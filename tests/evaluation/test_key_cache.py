"""The cache of keys and values holds what transformers' own holds, without copying it for every token."""

import causal_models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers.cache_utils import DynamicLayer

from neft_zoo.evaluation import key_cache
from neft_zoo.evaluation.generation import generate
from neft_zoo.evaluation.key_cache import RoomyLayer, row_cache

append = st.tuples(st.just("append"), st.integers(1, 5))
select = st.tuples(st.just("select"), st.lists(st.booleans(), min_size=9, max_size=9))
repeat = st.tuples(st.just("repeat"), st.integers(1, 2))
crop = st.tuples(st.just("crop"), st.integers(1, 3))


@given(st.lists(append | append | select | repeat | crop, max_size=12), st.integers(0, 3))
def test_it_holds_what_the_cache_of_transformers_holds(changes, room):
    ours, theirs, generator = RoomyLayer(), DynamicLayer(), torch.Generator().manual_seed(0)
    rows = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_cache, "ROOM", room)
        for kind, how in [("append", 2), *changes]:
            if kind == "append":
                new = torch.randn(2, rows, 2, how, 4, generator=generator)
                found, expected = ours.update(*new), theirs.update(*new)
                assert all(map(torch.equal, found, expected))
            elif kind == "select":
                kept = torch.tensor(how[:rows] + [True] * (rows - 9)).nonzero()[:, 0]
                kept = kept if len(kept) else torch.tensor([0])
                rows = len(kept)
                ours.batch_select_indices(kept), theirs.batch_select_indices(kept)
            elif kind == "repeat" and rows < 9:
                rows *= how
                ours.batch_repeat_interleave(how), theirs.batch_repeat_interleave(how)
            elif kind == "crop" and theirs.get_seq_length() > how:
                ours.crop(-how), theirs.crop(-how)
            assert ours.get_seq_length() == theirs.get_seq_length()
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_a_token_is_written_in_place():
    layer = RoomyLayer()
    layer.update(torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 4))
    places = set()
    for _ in range(key_cache.ROOM):
        keys, values = layer.update(torch.randn(2, 2, 1, 4), torch.randn(2, 2, 1, 4))
        places.add((keys.data_ptr(), values.data_ptr()))
    assert len(places) == 1
    layer.update(torch.randn(2, 2, 1, 4), torch.randn(2, 2, 1, 4))
    assert layer.keys.data_ptr() not in {keys for keys, _ in places} and layer.get_seq_length() == 8 + key_cache.ROOM


def test_a_model_whose_config_forbids_the_cache_answers_alike(llama, tokenizer):
    model, prompts = llama(), [[5, 6, 7], [8, 9]]
    found = generate(model, tokenizer, prompts, max_new_tokens=40, batch_size=2)
    model.config.use_cache = model.generation_config.use_cache = False
    assert generate(model, tokenizer, prompts, max_new_tokens=40, batch_size=2) == found


@pytest.mark.parametrize("name", ["falcon_h1", "openai-gpt", "xlm", "xlnet", "xlstm"])
def test_models_with_other_caches_answer_too(name, tokenizer):
    model = causal_models.build(name).eval()
    assert row_cache(model) is None
    prompts = [[5, 6, 7, 8], [5, 9, 3, 2]]
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=40)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, max_new_tokens=40, batch_size=2) == alone


def test_an_adapter_keeps_the_cache_of_its_base(llama):
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    assert row_cache(get_peft_model(llama(), lora)) is not None


def test_answers_are_those_of_the_cache_of_transformers(llama, tokenizer, monkeypatch):
    model, prompts = llama(), [[5, 6, 7], [8, 9], [5] * 70]
    assert all(type(layer) is RoomyLayer for layer in row_cache(model).layers)
    found = generate(model, tokenizer, prompts, max_new_tokens=40, batch_size=3)
    monkeypatch.setattr(key_cache, "RoomyLayer", DynamicLayer)
    assert generate(model, tokenizer, prompts, max_new_tokens=40, batch_size=3) == found
