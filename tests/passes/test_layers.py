"""Backbone and decoder layers are found by how a model is built and by what runs, whatever their names."""

import pytest
import torch
from architectures import HEADS, text
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, XLNetConfig, XLNetLMHeadModel
from transformers.modeling_outputs import CausalLMOutput

from neft_zoo import NoiseError, attach, make
from neft_zoo.noise.batch import Batch
from neft_zoo.passes import model_outputs
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.label_positions import loss_shifts
from neft_zoo.passes.layers import find_backbones, find_layers

IDS = torch.arange(5, 21).view(2, 8)


class Block(nn.Module):
    """A layer that is nobody's kind, and names its argument as it likes."""

    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x):
        return x + self.mix(x).tanh()


class Trunk(nn.Module):
    """A table, blocks and, beside them, as many other modules, in one order or the other."""

    def __init__(self, config, beside):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        width, count = config.hidden_size, config.num_hidden_layers
        self.beside = nn.ModuleList(nn.LayerNorm(width) for _ in range(count)) if beside else None
        self.tower = nn.ModuleList(Block(width) for _ in range(count))
        self.across = beside == "across"

    def forward(self, ids):
        states = self.words(ids)
        for number, block in enumerate(self.tower):
            if self.across:  # what a block returns is not what the next one is given
                states = self.beside[number](states)
            elif self.beside is not None:
                states.mean() + self.beside[number](torch.zeros_like(states)).mean()
            states = block(x=states)
        return states


class Remote(PreTrainedModel):
    """A model as remote code may have it: no prefix, no name that anybody knows, a bound on its logits of its own."""

    config_class = LlamaConfig

    def __init__(self, config, beside=None, factor=1.0):
        super().__init__(config)
        self.trunk, self.to_words = Trunk(config, beside), nn.Linear(config.hidden_size, config.vocab_size)
        self.factor, self.calls = factor, 0

    def get_input_embeddings(self):
        return self.trunk.words

    def get_output_embeddings(self):
        return self.to_words

    def forward(self, input_ids, labels=None, use_cache=None):
        self.calls += 1
        logits = self.to_words(self.trunk(input_ids)) * self.factor
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=logits.shape[-1])
        return CausalLMOutput(loss=loss, logits=logits)


def remote(*args, **kwargs):
    torch.manual_seed(0)
    return Remote(LlamaConfig(**{**HEADS, "num_hidden_layers": 3}), *args, **kwargs).train()


@pytest.mark.parametrize("beside", [None, "beside"])
def test_names_do_not_matter(beside):
    model = remote(beside)
    assert find_layers(model) == list(model.trunk.tower) and find_backbones(model) == [model.trunk]
    inputs = {"input_ids": IDS, "labels": IDS}
    for noise in ({"name": "hype", "size": 0.1}, {"name": "r3f", "eps": 0.5}, "lnsr"):
        loss = attach(model, noise, total_steps=1).loss(inputs)
        assert loss != model(**inputs).loss


def test_lists_of_modules_that_hand_nothing_on_are_refused():
    with pytest.raises(NoiseError, match="what the one before returns, got Remote, which has none"):
        find_layers(remote("across"))


def test_layers_of_transformers_are_found_without_a_pass(llama):
    model = llama()
    model.forward = None  # whoever calls it fails
    assert find_layers(model) == list(model.model.layers) and find_backbones(model) == [model.model]
    with torch.device("meta"):
        bare = LlamaForCausalLM(LlamaConfig(**HEADS))
    assert len(find_layers(bare)) == 2


def test_a_pass_to_find_layers_leaves_nothing_behind():
    model = remote("beside")
    model.trunk.beside.eval()
    before, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    find_layers(model)
    assert model.calls == 1 and torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_layers_that_cannot_be_run_are_refused():
    with torch.device("meta"):
        model = Remote(LlamaConfig(**HEADS), "beside")
    model.forward = None
    with pytest.raises(NoiseError, match="got Remote, which has none"):
        find_layers(model)


def test_layers_cut_off_by_hand_are_found(llama):
    model = llama(num_hidden_layers=4)
    model.model.layers = model.model.layers[:3]
    assert find_layers(model) == list(model.model.layers)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_logits_that_the_head_does_not_make_are_kept(monkeypatch, factor):
    """The head's own logits would be compared otherwise; where they are the model's, none are kept."""
    monkeypatch.setattr(model_outputs, "KEPT_LOGITS", 0)
    model, seen, inputs = remote(factor=factor), [], {"input_ids": IDS, "labels": IDS}
    handle = attach(model, {"name": "r3f", "eps": 0.5, "weight": 2.0}, total_steps=1)
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    loss = handle.loss(inputs)
    p, q = (output.logits[:, :-1].log_softmax(-1) for output in seen)
    both = ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()
    torch.testing.assert_close(loss, seen[0].loss + 2.0 * both)
    with handle.session.hooks.open(None, handle.session.batch(inputs, 0)) as done:
        model(**inputs)
    assert (done.logits is not None) == (factor != 1.0)


def test_rows_and_columns_that_are_exchanged_are_seen_where_the_shape_does_not_tell():
    config = XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=2, d_inner=32)
    inputs = {"input_ids": torch.arange(5, 30).view(5, 5), "labels": torch.arange(5, 30).view(5, 5)}
    handle = attach(XLNetLMHeadModel(config).train(), "neft_uniform", total_steps=1)
    with pytest.raises(NoiseError, match="got them with rows and columns exchanged"):
        handle.loss(inputs)
    model = text("llama")
    with ModelHooks(model).open(make("neft_uniform").noise, Batch.from_inputs(inputs)) as done:
        model(**inputs)
    assert done.deltas


def test_what_a_loss_compares_a_label_with():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 7, 11, generator=generator), torch.randint(0, 11, (3, 7), generator=generator)
    labels[0, 3:] = -100
    losses = [
        nn.functional.cross_entropy(logits[:, : 7 - by].flatten(0, 1), labels[:, by:].flatten()) for by in (0, 1)
    ]
    assert [loss_shifts(loss, logits, labels) for loss in losses] == [False, True]
    assert loss_shifts(losses[1] + 0.5, logits, labels) is None, "a router's loss is in it"
