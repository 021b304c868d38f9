"""Properties of a strategy as a value, and of a model with its noise."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import torch
import yaml
from torch import Tensor, nn

from neft_zoo import noise, objectives, registry
from neft_zoo.noise import cutoff as cuts
from neft_zoo.noise import data_dependent as geometry
from neft_zoo.noise import distributions, scales, schedules, tokens
from neft_zoo.noise import mixup as mixing
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.batch import EMBEDDING, IGNORED, Batch
from neft_zoo.objectives import adversarial
from neft_zoo.objectives import norm_ball as ball
from neft_zoo.passes import weight_noise as weights
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.testing.cases import VOCABULARY, widths
from neft_zoo.training.session import NoiseSession

# Modules whose names may occur in a strategy's repr.
PARTS = (adversarial, ball, cuts, distributions, geometry, mixing, noise, objectives)
PARTS += (registry, scales, schedules, tokens, weights)
# Tolerance for a mean of many draws: six standard errors, exceeded once in a billion.
SIGMAS = 6.0


def _mean_is_zero_and_rms_as_stated(strategy: Strategy) -> None:
    """Uses many draws at once: 64 documents of 16 tokens, 64 features."""
    if not isinstance(strategy.noise, AdditiveNoise):
        return
    documents = torch.arange(1, 1025).view(64, 16)
    labels = torch.where(torch.arange(16) < 8, IGNORED, documents)
    batch = Batch.from_inputs({"input_ids": documents, "labels": labels}, key=7, progress=0.25)
    embeds = torch.randn(64, 16, 64, generator=torch.Generator().manual_seed(0))
    size = (strategy.noise.scale(embeds, batch) * strategy.noise.where(batch)[..., None]).expand_as(embeds)
    draws = (strategy.noise(embeds, batch) / size)[size > 0]
    if not len(draws):
        return
    mean, rms = draws.mean().item(), draws.square().mean().sqrt().item()
    stated = strategy.noise.what.rms
    assert abs(mean) < SIGMAS * stated / math.sqrt(len(draws)), f"the mean is {mean:.4g}"
    assert rms > 0, "nothing is drawn"
    kurtosis = draws.pow(4).mean().item() / rms**4
    spread = SIGMAS * stated * math.sqrt(max(kurtosis - 1, 1e-3) / (4 * len(draws)))
    assert abs(rms - stated) < spread, f"the rms is {rms:.4f}, stated {stated:.4f}"


def _repr_json_and_yaml_give_the_strategy_back(strategy: Strategy) -> None:
    names = {}
    for module in PARTS:
        names |= vars(module)
    if strategy.name == "custom":
        return
    home = vars(__import__(registry.entry(strategy.name).build.__module__, fromlist=["_"]))
    assert eval(repr(strategy), {**names, **home}) == strategy, repr(strategy)
    saved = strategy.to_dict()
    assert make(json.loads(json.dumps(saved))) == strategy, f"JSON: {saved}"
    assert make(yaml.safe_load(yaml.safe_dump(saved))) == strategy, f"YAML: {saved}"
    assert hash(strategy) == hash(make(saved))


class _Model(nn.Module):
    """An embedding and a head, the minimum that hooks need."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, width), nn.Linear(width, VOCABULARY)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


def _session(model: nn.Module, strategy: Strategy) -> NoiseSession:
    """Return a session of the strategy's noise alone, since comparing predictions would require a backbone."""
    alone = replace(strategy, objective=objectives.SinglePass())
    return NoiseSession(model, alone, token_counts=torch.arange(1, VOCABULARY + 1))


def _the_model_is_clean_outside_a_training_pass(strategy: Strategy) -> None:
    if strategy.noise is None or isinstance(strategy.noise, noise.AtLayers | noise.TokenEdit):
        return
    torch.manual_seed(0)
    model = _Model(widths(strategy).stop)
    ids = torch.arange(1, 13).view(2, 6)
    batch = Batch.from_inputs({"input_ids": ids, "labels": torch.where(torch.arange(6) < 3, IGNORED, ids)}, key=3)
    clean, looked_up = model(ids), []
    model.embed.register_forward_hook(lambda module, args, output: looked_up.append(output))
    session = _session(model, strategy)
    with session.open(batch) as noisy:
        model(ids)
    assert noisy.deltas, "nothing was added in an open pass"
    state = torch.get_rng_state()
    for mode in (model.train, model.eval):
        mode()
        assert torch.equal(model(ids), clean), "the model is not clean outside an open pass"
        assert model.embed(ids) is looked_up[-1], "another tensor came out of the embedding"
    with session.open(batch), torch.no_grad():
        assert torch.equal(model(ids), clean), "the model is not clean without gradients"
    try:
        with session.open(batch):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(model(ids), clean), "the model is not clean after an exception"
    assert torch.equal(state, torch.get_rng_state()), "evaluation drew random numbers"
    session.detach()


def _noise_keeps_its_energy_in_bf16(strategy: Strategy) -> None:
    if not isinstance(strategy.noise, AdditiveNoise):
        return
    # Uses many coordinates, since noise of 1e-5 changes only one in a thousand bf16 numbers near 1.
    model = _Model(256).to(torch.bfloat16)
    nn.init.normal_(model.embed.weight)
    ids = torch.randint(VOCABULARY, (64, 15), generator=torch.Generator().manual_seed(0))
    batch = Batch.from_inputs({"input_ids": ids, "labels": torch.where(torch.arange(15) < 8, IGNORED, ids)}, key=3)
    session = _session(model, strategy)
    with session.open(batch) as record:
        noisy = model.embed(ids)
    session.detach()
    assert noisy.dtype == torch.bfloat16, f"the embedding became {noisy.dtype}"
    delta = record.deltas[EMBEDDING]
    added = noisy.float() - model.embed(ids).float()
    # A coordinate changes by whole steps of bf16, up to 2^-6 for numbers below 4, so the sum of squares varies.
    kept, meant = added.square().sum(), delta.square().sum()
    assert abs(kept - meant) <= SIGMAS * 2**-6 * meant.sqrt(), f"its energy became {kept:.4g}, meant {meant:.4g}"


STRATEGY_CHECKS: tuple[Callable[[Strategy], None], ...] = (
    _mean_is_zero_and_rms_as_stated,
    _repr_json_and_yaml_give_the_strategy_back,
    _the_model_is_clean_outside_a_training_pass,
    _noise_keeps_its_energy_in_bf16,
)
