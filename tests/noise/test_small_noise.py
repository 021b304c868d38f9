"""hype at every layer, and the noise of r3f, pdr and lnsr: shapes, sizes and places."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, documents, embeddings, lay_out, outside, per_document
from scipy import stats
from small_models import same, weights

from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.noise.additive import layer_numbers
from neft_zoo.passes.hooks import ModelHooks

DOCS = documents(300, seed=4)
NORMAL, UNIFORM = stats.norm(), stats.uniform(-1, 2)
CASES = {
    "hype": ({"size": 1e-3}, NORMAL, lambda rms: 1e-3),
    "hype uniform": ({"size": 1e-3, "what": "uniform"}, UNIFORM, lambda rms: 1e-3),
    "hype relative": ({"size": 0.01, "relative": True}, NORMAL, lambda rms: 0.01 * rms),
    "r3f": ({}, UNIFORM, lambda rms: 1e-5),
    "r3f gaussian": ({"eps": 1e-4, "what": "gaussian"}, NORMAL, lambda rms: 1e-4),
    "r3f relative": ({"eps": 0.2, "relative": True}, UNIFORM, lambda rms: 0.2 * rms),
    "pdr": ({}, NORMAL, lambda rms: 1e-3),
    "lnsr": ({}, NORMAL, lambda rms: 0.1 * rms),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_noise_has_the_stated_distribution_and_size(case, layout):
    arguments, distribution, size = CASES[case]
    noise = make(case.split()[0], **arguments).noise
    batch, places = lay_out(DOCS, layout, key=2)
    scale = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(0))[..., None] * 3 + 0.1
    embeds = embeddings(batch) * scale
    delta = noise(embeds, batch)
    assert not outside(delta, places).any()
    z = []
    for e, d in zip(per_document(embeds.double(), places), per_document(delta.double(), places), strict=True):
        z.append(d / size(np.sqrt((e**2).mean(1, keepdims=True))))
    z = np.concatenate(z)
    assert stats.kstest(z.ravel(), distribution.cdf).pvalue > 1e-6
    assert abs(z.mean()) < 6 * distribution.std() / np.sqrt(z.size)
    for one, other in ((z[:, :-1], z[:, 1:]), (z[:-1], z[1:])):
        assert abs(stats.pearsonr(one.ravel(), other.ravel()).statistic) < 6 / np.sqrt(one.size)


def open_layers(model, noise, batch):
    """Run a pass and return its record."""
    with ModelHooks(model, layers=True).open(noise, batch) as done:
        done.loss = model(batch.input_ids, attention_mask=batch.real.long(), labels=batch.labels).loss
    return done


@pytest.fixture
def batch():
    return lay_out(documents(8, seed=6, shortest=6), "right", key=4)[0]


def test_every_layers_input_gets_noise_of_its_own(llama, batch):
    model = llama(num_hidden_layers=4).train()
    seen = {}
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda _, args, output, index=index: seen.update({index: (args[0], output)}))
    done = open_layers(model, make("hype", size=0.1).noise, batch)
    assert sorted(done.deltas) == [0, 1, 2, 3]
    entering = {0: model.model.embed_tokens(batch.input_ids), **{i + 1: seen[i][1] for i in range(3)}}
    draws = []
    for index, delta in done.deltas.items():
        torch.testing.assert_close(seen[index][0] - entering[index], delta, atol=1e-6, rtol=0)
        draws.append(delta[batch.real].flatten().detach().numpy())
        assert stats.kstest(draws[-1], stats.norm(scale=0.1).cdf).pvalue > 1e-6
    correlations = np.corrcoef(draws) - np.eye(4)
    assert abs(correlations).max() < 6 / np.sqrt(draws[0].size), "no layer repeats another's draw"


def test_chosen_layers_only_and_negative_numbers_count_from_the_end(llama, batch):
    model = llama(num_hidden_layers=4).train()
    everywhere = open_layers(model, make("hype", size=0.1).noise, batch).deltas
    some = open_layers(model, make("hype", size=0.1, layers=[1, -1]).noise, batch).deltas
    assert sorted(some) == [1, 3] and all(torch.equal(some[i], everywhere[i]) for i in some)


@pytest.mark.parametrize(("depth", "layer"), [(1, 0), (2, 1), (4, 1), (8, 1), (32, 4), (80, 10)])
def test_lats_layer_exists_at_every_depth_behind_the_embeddings(depth, layer):
    assert layer_numbers(make("lat").noise.layers, depth) == {layer}


def test_a_fraction_is_of_the_depth(llama, batch):
    model = llama(num_hidden_layers=4).train()
    some = open_layers(model, make("hype", size=0.1, layers=[0.3, 0.75]).noise, batch).deltas
    assert sorted(some) == [1, 3]


def test_a_recomputed_block_sees_the_same_noise(llama, config, records, tokenizer):
    runs = []
    for checkpointing in (False, True):
        settings = dict(gradient_checkpointing=checkpointing, max_steps=2)
        noise = {"name": "hype", "size": 0.1, "relative": True}
        trainer = SFTTrainer(
            llama(), args=config(**settings), train_dataset=records, processing_class=tokenizer, noise=noise
        )
        trainer.train()
        runs.append(weights(trainer.model))
    assert same(*runs)


@pytest.mark.cell("Precision", "embeddings of std 1 in bf16: rms and mean of small noise")
def test_small_noise_keeps_its_energy_in_bf16(batch):
    """1e-3 is below half a bf16 step of numbers near 1: rounded to nearest, little would be left of it."""
    model = torch.nn.Sequential(torch.nn.Embedding(4005, 4096)).to(torch.bfloat16)
    model.get_input_embeddings = lambda: model[0]
    with ModelHooks(model).open(make("r3f", eps=1e-3).noise, batch) as done:
        noisy = model(batch.input_ids)
    noisy, clean, delta = noisy.detach(), done.embeds[-1].detach().double(), done.deltas[-1].double()
    assert noisy.dtype == torch.bfloat16
    added = noisy.double() - clean
    assert (added.square().sum() / delta.square().sum()).item() == pytest.approx(1, abs=0.05)
    assert (added * delta).sum() > 0


@pytest.mark.parametrize("name", ["hype", "hidden_cut"])
@pytest.mark.parametrize("layers", [[2], [0, -3], [99]])
def test_layers_that_the_model_lacks_are_refused(llama, config, records, tokenizer, name, layers):
    noise = {"name": name, "layers": layers}
    with pytest.raises(NoiseError, match=f"layers must .*got {layers[-1]}"):
        attach(llama(), noise, total_steps=1)
    with pytest.raises(NoiseError, match=f"layers must .*got {layers[-1]}"):
        SFTTrainer(llama(), args=config(), train_dataset=records, processing_class=tokenizer, noise=noise)


@pytest.mark.parametrize("layers", [[], "some", [1.0], [0.0], [True], 1])
def test_layers_that_are_no_numbers_are_refused(layers):
    with pytest.raises(NoiseError, match="layers must be 'all' or a list of layer numbers"):
        make("hype", layers=layers)


def test_lnsr_beyond_the_last_layer_is_refused(llama, batch):
    inputs = dict(input_ids=batch.input_ids, labels=batch.labels, attention_mask=batch.real.long())
    with pytest.raises(NoiseError, match="first must be below the model's 2 layers, got 2"):
        attach(llama().train(), {"name": "lnsr", "first": 2}, total_steps=1).loss(inputs)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("hype", {"size": -1}, "size must be"),
        ("hype", {"size": -1, "relative": True}, "size must be"),
        ("hype", {"what": "cauchy"}, "what must be one of"),
        ("r3f", {"eps": -1}, "eps must be"),
        ("r3f", {"eps": -1, "relative": True}, "eps must be"),
        ("pdr", {"eps": -1}, "eps must be"),
        ("lnsr", {"size": -1}, "size must be"),
    ],
)
def test_sizes_below_0_are_refused(name, arguments, message):
    with pytest.raises(NoiseError, match=f"^{name}: {message}"):
        make(name, **arguments)
