"""Mistakes of other implementations that no other test is about, and the list of all of them."""

import ast
import copy
from pathlib import Path

import pytest
import torch
from mistakes import MISTAKES, put_in
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import neft_zoo
from neft_zoo import NoiseError, attach, make
from neft_zoo.noise.batch import EMBEDDING, Batch
from neft_zoo.passes.compiled import draw_ahead

IDS = torch.arange(5, 17).view(2, 6)
BATCH = {"input_ids": IDS, "labels": IDS.clone()}
LOUD = {"name": "neft_uniform", "alpha": 50}


def test_noise_that_cannot_enter_is_an_error_and_not_ignored(llama):
    model = llama().train()
    handle = attach(model, LOUD, total_steps=1)

    def by_embeddings(model, inputs):
        return model(inputs_embeds=model.get_input_embeddings().weight[inputs["input_ids"]], labels=IDS).loss

    with pytest.raises(NoiseError, match="must call the model with input_ids, which noise enters by, got none"):
        handle.loss(BATCH, compute=by_embeddings)


def test_only_the_token_embedding_gets_noise():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, embd_pdrop=0.0)).train()
    seen = {}
    for name in ("wte", "wpe"):
        module = getattr(model.transformer, name)
        module.register_forward_hook(lambda m, args, out, name=name: seen.setdefault(name, []).append(out))
    handle = attach(model, LOUD, total_steps=1)
    positions = [m for m in model.modules() if isinstance(m, nn.Embedding) and m._forward_hooks]
    handle.loss(BATCH)
    model(IDS)
    assert len(positions) == 2, "the two watched ones"
    assert torch.equal(*seen["wpe"]), "position embeddings stay clean"
    assert handle.session.hooks.embeddings == [model.transformer.wte]


def test_nothing_of_the_model_is_replaced(llama):
    model = llama().train()
    before = {name: type(module).forward for name, module in model.named_modules()}
    handle = attach(model, LOUD, total_steps=1)
    for _ in range(3):
        attach(model, LOUD, total_steps=1).loss(BATCH)
    assert all("forward" not in vars(module) for module in model.modules())
    assert before == {name: type(module).forward for name, module in model.named_modules()}
    handle.detach()


def test_the_tied_head_reads_clean_weights(llama):
    model = llama(tie_word_embeddings=True).train()
    weight = model.lm_head.weight.detach().clone()
    heads = []
    model.lm_head.register_forward_pre_hook(lambda module, args: heads.append(module.weight.detach().clone()))
    attach(model, LOUD, total_steps=1).loss(BATCH).backward()
    assert len(heads) == 1 and torch.equal(heads[0], weight) and torch.equal(model.lm_head.weight, weight)


def test_relative_noise_looks_at_the_output_and_not_at_the_table(llama):
    """Sharded engines hold no whole table outside the forward pass."""
    model = llama(tie_word_embeddings=False).train()
    twin = copy.deepcopy(model)
    expected = attach(twin, "token_relative", total_steps=1).loss(BATCH)
    handle = attach(model, "token_relative", total_steps=1)
    table = model.get_input_embeddings()
    whole = table.weight.data
    table.weight.data = torch.empty(0)
    table.register_forward_pre_hook(lambda module, args: setattr(module.weight, "data", whole))
    assert torch.equal(handle.loss(BATCH), expected)


def test_a_sharded_table_is_not_looked_at(llama):
    table = llama(tie_word_embeddings=False).get_input_embeddings()
    assert list(draw_ahead(table, make("neft_uniform").noise, Batch.from_inputs(BATCH))) == [EMBEDDING]
    model = llama(tie_word_embeddings=False)
    table = model.get_input_embeddings()
    table.weight.data = torch.empty(0)  # as outside the forward pass of ZeRO-3
    assert not draw_ahead(table, make("neft_uniform").noise, Batch.from_inputs(BATCH))
    with pytest.raises(NoiseError, match="needs the whole embedding table before it is sharded"):
        attach(model, {"name": "token_subspace", "k": 4}, total_steps=1)


def test_every_listed_mistake_can_still_be_put_in():
    """`make mistakes` does so, and runs the tests that are named."""
    tests, package = Path(__file__).parents[1], Path(neft_zoo.__file__).parent
    assert sorted({number for number, *_ in MISTAKES}) == list(range(1, 33))
    told = (tests.parent / "docs" / "mutants.md").read_text(encoding="utf-8")
    for number, what, test, *changes in MISTAKES:
        assert f"| {number} | {what} | `{test}` | killed |" in told
        changed = {}
        for module, old, new in changes:
            source = changed.get(module) or (package / f"{module}.py").read_text(encoding="utf-8")
            changed[module] = put_in(source, old, new)
            ast.parse(changed[module])
        file, name = test.split("::")
        named = [node.name for node in ast.parse((tests / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        assert name.partition("[")[0] in named, test
