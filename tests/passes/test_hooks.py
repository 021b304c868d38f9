"""The hooks between noise and model."""

import copy
import pickle

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import GPT2Config, GPT2LMHeadModel

from neft_zoo import NoiseError, make
from neft_zoo.noise.additive import AdditiveNoise, AtLayers
from neft_zoo.noise.batch import EMBEDDING, Batch
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength, Fixed, Relative
from neft_zoo.passes import hooks as taps
from neft_zoo.passes import model_outputs
from neft_zoo.passes.adding import add_rounded
from neft_zoo.passes.compiled import PREDRAWN
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.layers import LayerHook, find_backbones, find_layers

NEFT = make("neft_uniform").noise
IDS = torch.arange(5, 17).view(2, 6)


@pytest.fixture
def batch():
    return Batch.from_inputs({"input_ids": IDS}, key=1)


def test_noise_is_added_in_an_open_pass_only(llama, batch):
    model = llama().train()
    clean = model(IDS).logits
    tap = ModelHooks(model)
    with tap.open(NEFT, batch) as done:
        noisy = model(IDS).logits
    assert not torch.equal(noisy, clean)
    assert torch.equal(
        done.embeds[EMBEDDING] + done.deltas[EMBEDDING], model.model.embed_tokens(IDS) + done.deltas[-1]
    )
    assert torch.equal(model(IDS).logits, clean)
    tap.detach()
    with tap.open(NEFT, batch):
        assert torch.equal(model(IDS).logits, clean)


def test_a_tap_hooks_what_it_is_asked_for_and_nothing_else(llama):
    model = llama()
    parts = {"model.embed_tokens", "model", "", "model.layers.0", "model.layers.1"}
    for options, expected in (
        ({}, {"model.embed_tokens"}),
        ({"hidden": True}, {"model.embed_tokens", "model", ""}),
        ({"layers": True}, {"model.embed_tokens", "model.layers.0", "model.layers.1"}),
        ({"read": lambda kwargs: None}, {"model.embed_tokens", "model", ""}),
        ({"layers": "all", "hidden": True}, parts),
    ):
        tap = ModelHooks(model, **options)
        assert {name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks} == expected
        tap.detach()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_drawn_ahead_is_what_the_hook_adds(llama, dtype):
    model = llama().to(dtype)
    batch = Batch.from_inputs({"input_ids": IDS}, key=3)
    noise = make({"name": "token_relative", "rho": 0.01}).noise
    embedding, seen = model.get_input_embeddings(), []
    clean = embedding(IDS).detach()
    tap = ModelHooks(model, compiled=True)
    embedding.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    with tap.open(noise, batch) as done:
        model(IDS)
    assert len(seen) == 2, "it is looked up once more, before the pass"
    assert torch.equal(seen[-1], add_rounded(clean, noise(clean, batch), batch))
    assert torch.equal(done.deltas[-1], noise(clean, batch)) and torch.equal(done.embeds[-1], clean)
    with tap.open(None, batch):
        model(IDS)
    assert torch.equal(seen[-1], clean) and len(seen) == 3


@pytest.mark.parametrize("scale", [Fixed(0.1), Relative(0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_drawn_ahead_for_layers_is_what_their_hooks_add(llama, batch, dtype, scale):
    """Noise in proportion to the input of a layer cannot be known before, and is drawn there."""
    model, found = llama(num_hidden_layers=4).to(dtype), []
    for compiled in (False, True):
        tap = ModelHooks(model, layers=True, compiled=compiled)
        with tap.open(AtLayers(AdditiveNoise(Uniform(), scale), (0, -1)), batch) as done:
            assert sorted(PREDRAWN.drawn) == ([0, 3] if compiled and isinstance(scale, Fixed) else [])
            logits = model(IDS).logits
        assert not PREDRAWN.drawn and sorted(done.deltas) == sorted(done.embeds) == [0, 3]
        found.append((logits, done.deltas[3], done.embeds[3]))
        tap.detach()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "token ids of 0 or 1 dimensions")
@pytest.mark.cell("Architectures", "models that look up single ids (vision-language)")
def test_other_shapes_pass_unchanged(llama, batch):
    model = llama()
    tap = ModelHooks(model)
    embed = model.model.embed_tokens
    with tap.open(NEFT, batch):
        for ids in (torch.tensor(3), torch.tensor([3, 4]), IDS[:1]):
            assert torch.equal(embed(ids), embed.weight[ids])


def test_an_exception_closes_the_pass(llama, batch):
    model = llama()
    clean = model(IDS).logits
    tap = ModelHooks(model)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), tap.open(NEFT, batch):
            raise error
    assert torch.equal(model(IDS).logits, clean)


def test_an_attached_model_can_be_copied_and_pickled(llama, batch):
    model = llama()
    tap = ModelHooks(model, layers=True, hidden=True)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    with tap.open(NEFT, batch):
        noisy = model(IDS).logits
        for twin in twins:
            assert not torch.equal(twin(IDS).logits, noisy), "the copy has a tap of its own"


def test_layers_get_noise_of_their_own(llama, batch):
    model = llama(num_hidden_layers=4)
    tap = ModelHooks(model, layers=True)
    for layers, expected in (("all", [0, 1, 2, 3]), ((1, -1), [1, 3])):
        with tap.open(AtLayers(AdditiveNoise(Uniform(), Fixed(0.1)), layers), batch) as done:
            model(IDS)
        assert sorted(done.deltas) == expected
        assert len({delta.sum().item() for delta in done.deltas.values()}) == len(expected)
    with tap.open(NEFT, batch) as done:
        model(IDS)
    assert list(done.deltas) == [EMBEDDING] and sorted(done.inputs) == [0, 1, 2, 3, 4]


def test_on_layers_there_is_no_factor_of_an_embedding(llama, batch):
    found = []
    for space in ("scaled", "raw"):
        model = llama()
        with ModelHooks(model, layers=True).open(
            AtLayers(AdditiveNoise(Uniform(), ByLength(5.0, space=space))), batch
        ) as done:
            model(IDS)
        found.append(done.deltas[1])
    assert found[0].any() and torch.equal(*found)


def test_a_pass_without_gradients_leaves_no_trace_of_layers(llama, batch):
    model = llama()
    tap = ModelHooks(model, layers=True)
    with tap.open(AtLayers(NEFT), batch) as done:
        model(IDS)
        kept = done.inputs[1]
        with torch.no_grad():
            model(IDS)
            hidden = torch.zeros(2, 6, 32)
            assert tap.at_layer(hidden, 0) is None and not hasattr(hidden, taps.ADDED)
        assert done.inputs[1] is kept


@pytest.mark.parametrize("checkpointing", ["none", "transformers", "with hooks inside"])
def test_a_layers_gradient_is_that_of_the_noise_it_saw(llama, batch, checkpointing):
    """With checkpointing the block is computed again in the backward pass, and must see the same noise."""
    model = llama().train()
    if checkpointing == "transformers":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tap = ModelHooks(model, layers=True)
    if checkpointing == "with hooks inside":
        for number, layer in enumerate(model.model.layers):
            model.model.layers[number] = checkpoint_wrapper(layer)
    with tap.open(AtLayers(AdditiveNoise(Uniform(), Fixed(0.1))), batch):
        loss = model(IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    reference = llama().train()
    other = ModelHooks(reference, layers=True)
    with other.open(AtLayers(AdditiveNoise(Uniform(), Fixed(0.1))), batch):
        reference(IDS, labels=IDS, use_cache=False).loss.backward()
    for one, two in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-8)


def test_hidden_is_what_the_head_sees(llama, batch):
    model = llama()
    tap = ModelHooks(model, hidden=True)
    with tap.open(None, batch) as done:
        logits = model(IDS).logits
    assert torch.equal(model.lm_head(done.hidden), logits)
    with tap.open(None, batch) as done:
        assert torch.equal(model(IDS, return_dict=False)[0], logits)
    assert torch.equal(model.lm_head(done.hidden), logits)


def test_numbers_of_layers_must_be_the_models(llama):
    ModelHooks(llama(), layers=(-2, 1))
    for number in (2, -3):
        with pytest.raises(NoiseError, match=f"layers must lie between -2 and 1, got {number}"):
            ModelHooks(llama(), layers=(0, number))


def test_logits_are_kept_where_they_are_few(llama, batch, monkeypatch):
    model = llama()
    tap = ModelHooks(model, hidden=True)
    many = IDS.numel() * model.config.vocab_size
    for limit, told in ((many, {}), (many - 1, {}), (many, {"logits_to_keep": 5})):
        monkeypatch.setattr(model_outputs, "KEPT_LOGITS", limit)
        with tap.open(None, batch) as done:
            logits = model(IDS, **told).logits
        kept = limit == many and not told
        assert (done.logits is not None) == kept and (not kept or torch.equal(done.logits, logits))
    with torch.no_grad(), tap.open(None, batch) as done:
        model(IDS)
    assert done.logits is None and done.hidden is None
    model(IDS)  # outside of a pass


def test_virtual_tokens_in_front_are_no_part_of_what_is_kept(llama, batch):
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    model = get_peft_model(llama(), config)
    with ModelHooks(model, hidden=True).open(None, batch) as done:
        logits = model(IDS).logits
    assert logits.shape[1] == 9 and torch.equal(done.logits, logits[:, 3:])
    assert torch.equal(model.lm_head(done.hidden), done.logits)


@torch.no_grad()
def test_a_reference_shares_the_noise_without_gradients(llama, batch):
    model, other, read = llama(), llama(), lambda kwargs: batch
    clean = other(IDS).logits
    for reference, noisy in ((None, False), ([], False), ([None], False), ([other], True)):
        tap = ModelHooks(model, read=read, reference=reference)
        with tap.open(NEFT, None) as done:
            assert torch.equal(other(input_ids=IDS).logits, clean) != noisy
            model(input_ids=IDS)
        assert bool(done.deltas) == (reference is not None)
        tap.detach()


def test_a_layers_other_arguments_pass_unchanged(llama, batch):
    tap, hidden = ModelHooks(llama(), layers=True), torch.zeros(2, 6, 32)
    hook = LayerHook(tap.at_layer, 0)
    with tap.open(AtLayers(NEFT), batch):
        (noisy, *rest), told = hook(None, (hidden, "mask", "positions"), {"use_cache": False})
        args, named = hook(None, (), {"hidden_states": hidden, "use_cache": False})
    assert noisy.any() and rest == ["mask", "positions"] and told == {"use_cache": False}
    assert args == () and torch.equal(named.pop("hidden_states"), noisy) and named == told


def test_layers_with_several_states_per_token_are_refused(llama, batch):
    tap = ModelHooks(llama(), layers=True)
    with (
        tap.open(AtLayers(NEFT), batch),
        pytest.raises(NoiseError, match="one state per token, got 3 dimensions in Ll"),
    ):
        tap.at_layer(torch.zeros(4, 2, 6, 32), 0)


def test_other_architectures_are_found():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=64, n_positions=16))
    assert len(find_layers(gpt2)) == 3 and find_backbones(gpt2) == [gpt2.transformer]
    batch = Batch.from_inputs({"input_ids": IDS})
    with ModelHooks(gpt2, layers=True).open(NEFT, batch) as done:
        gpt2(IDS)
    assert list(done.deltas) == [EMBEDDING], "only the token embedding: positions are an nn.Embedding, too"


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "token embedding"), ({"layers": True}, "decoder layers"), ({"hidden": True}, "backbone")],
)
def test_models_without_the_part_are_refused_by_name(options, message):
    class Bare(nn.Module):
        def get_input_embeddings(self):
            return None if not options else self.embed

        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(4, 4)

    with pytest.raises(NoiseError, match=f"{message}.* got Bare"):
        ModelHooks(Bare(), **options)


def test_layers_that_fsdp_computes_again_are_found_in_their_wrappers(llama):
    model = llama()
    model.model.layers = torch.nn.ModuleList(checkpoint_wrapper(layer) for layer in model.model.layers)
    assert find_layers(model) == list(model.model.layers)
