"""check_strategy(): the public conformance suite, for the zoo's entries and for anyone's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

from neft_zoo import distributions, noise, objectives, registry, scales, schedules, tokens
from neft_zoo.batch import IGNORED, Batch
from neft_zoo.errors import NoiseError
from neft_zoo.noise import AdditiveNoise
from neft_zoo.registry import Strategy, make
from neft_zoo.scales import ByLength
from neft_zoo.tap import Tap

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from jaxtyping import Float, Int

LAYOUTS = ("right", "left", "packed", "padding-free")
# Room for a mean of many draws: six standard errors, once in a billion.
SIGMAS = 6.0


@dataclass(frozen=True)
class Case:
    """Documents, and the layout and the model's numbers they are tried in."""

    documents: tuple[tuple[int, ...], ...]
    layout: str
    labelled: bool
    width: int
    dtype: torch.dtype
    key: int
    progress: float

    def inputs(self) -> dict[str, Tensor]:
        """Return what a collator would hand to the model; the second half of every document is graded."""
        labels = [[*[IGNORED] * (len(d) // 2), *d[len(d) // 2 :]] for d in self.documents]
        inputs = _padded if self.layout in ("right", "left") else _flat
        made = inputs(self.layout, [list(d) for d in self.documents], labels)
        return made if self.labelled else {name: value for name, value in made.items() if name != "labels"}

    def batch(self) -> Batch:
        return Batch.from_inputs(self.inputs(), key=self.key, progress=self.progress)

    def embeds(self, batch: Batch) -> Float[Tensor, "B L D"]:
        """Return embeddings that depend on the token alone, as a model's do."""
        return self.table()[batch.input_ids].to(self.dtype)

    def table(self) -> Float[Tensor, "V D"]:
        generator = torch.Generator().manual_seed(self.width)
        return torch.randn(VOCABULARY, self.width, generator=generator)


VOCABULARY = 64


def check_strategy(strategy: Strategy | str, *, max_examples: int = 30) -> None:
    """Check what every strategy must hold, on random batches; needs `neft-zoo[testing]`.

    Shape, device and float32; nothing outside `where` and nothing on padding; the stated bound and rms; zero mean;
    the same numbers for a document in every layout; the global random state untouched; numbers of strength 0 mean no
    noise and double strength means double noise; the clean model, bit for bit, outside an open pass; repr, JSON and
    YAML round trips. What does not apply to a strategy is left out by what it is made of.

    Args:
        strategy: a strategy or an entry's name.
        max_examples: random batches per property.

    Raises:
        AssertionError: naming the property that does not hold.
        NoiseError: if hypothesis is not installed, or the name is unknown.

    Example:
        >>> check_strategy("neft_uniform", max_examples=2)
    """
    try:
        from hypothesis import HealthCheck, Phase, given, settings
    except ImportError:
        raise NoiseError("check_strategy needs hypothesis: install neft-zoo[testing].") from None
    made = make(strategy)
    for check in (*VALUE_CHECKS, *MODEL_CHECKS):
        _named(check, made, lambda check=check: check(made))
    if made.noise is None or isinstance(made.noise, noise.AtLayers | noise.TokenEdit):
        return
    quiet = settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    for check in BATCH_CHECKS:
        quiet(given(_cases(needs_labels(made)))(_on_cases(check, made)))()


def _on_cases(check: Callable[[Strategy, Case], None], strategy: Strategy) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        _named(check, strategy, lambda: check(strategy, case))

    return run


def needs_labels(strategy: Strategy) -> bool:
    """Return whether the noise refuses a batch without labels."""
    batch = Batch.from_inputs({"input_ids": torch.arange(4)[None]})
    try:
        if strategy.noise is not None and not isinstance(strategy.noise, noise.TokenEdit):
            strategy.noise(torch.ones(1, 4, 2), batch)
    except NoiseError:
        return True
    return False


def _named(check: Callable[..., None], strategy: Strategy, run: Callable[[], None]) -> None:
    try:
        run()
    except AssertionError as error:
        what = check.__name__.lstrip("_").replace("_", " ")
        raise AssertionError(f"{strategy.name}: {what} does not hold: {error}") from error


def _cases(labelled: bool) -> SearchStrategy[Case]:
    from hypothesis import strategies as st

    document = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=17).map(tuple)
    return st.builds(
        Case,
        documents=st.lists(document, min_size=1, max_size=4).map(tuple),
        layout=st.sampled_from(LAYOUTS),
        labelled=st.just(True) if labelled else st.booleans(),
        width=st.integers(2, 32),
        dtype=st.sampled_from([torch.float32, torch.bfloat16]),
        key=st.integers(-(2**63), 2**63 - 1),
        progress=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    )


def _padded(side: str, documents: list[list[int]], labels: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, documents))

    def rows(values: list[list[int]], fill: int) -> Int[Tensor, "B L"]:
        gaps = [[fill] * (longest - len(row)) for row in values]
        pairs = zip(values, gaps, strict=True)
        return torch.tensor([gap + row if side == "left" else row + gap for row, gap in pairs])

    mask = rows([[1] * len(row) for row in documents], 0)
    return {"input_ids": rows(documents, 0), "attention_mask": mask, "labels": rows(labels, IGNORED)}


def _flat(layout: str, documents: list[list[int]], labels: list[list[int]]) -> dict[str, Tensor]:
    lengths = [len(row) for row in documents]
    flat = {
        "input_ids": torch.tensor([sum(documents, [])]),
        "labels": torch.tensor([sum(labels, [])]),
        "position_ids": torch.tensor([[i for length in lengths for i in range(length)]]),
    }
    if layout == "padding-free":
        flat["cu_seq_lens_q"] = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return flat


def _delta(strategy: Strategy, case: Case) -> tuple[Batch, Tensor]:
    batch = case.batch()
    assert strategy.noise is not None and not isinstance(strategy.noise, noise.TokenEdit)
    return batch, strategy.noise(case.embeds(batch), batch).detach()


def _trailing_singles(case: Case) -> int:
    """Return how many one-token documents end a flat batch: there they cannot be told from padding."""
    count = 0
    for document in reversed(case.documents):
        if len(document) > 1:
            break
        count += 1
    return count if case.layout in ("packed", "padding-free") else 0


def _delta_has_the_embeddings_shape(strategy: Strategy, case: Case) -> None:
    batch, delta = _delta(strategy, case)
    assert delta.shape == (*batch.input_ids.shape, case.width), f"got {tuple(delta.shape)}"
    assert delta.dtype == torch.float32, f"delta must be float32, got {delta.dtype}"
    assert delta.device == batch.input_ids.device
    assert delta.isfinite().all(), "delta must be finite"


def _delta_is_zero_on_padding_and_outside_where(strategy: Strategy, case: Case) -> None:
    batch, delta = _delta(strategy, case)
    assert (delta[~batch.real] == 0).all(), "noise on padding"
    if isinstance(strategy.noise, AdditiveNoise):
        assert (delta[strategy.noise.where(batch) == 0] == 0).all(), "noise outside where"


def _delta_is_within_its_bound(strategy: Strategy, case: Case) -> None:
    batch, delta = _delta(strategy, case)
    if not isinstance(strategy.noise, AdditiveNoise) or not isinstance(strategy.noise.scale, ByLength):
        return
    what, scale = strategy.noise.what, strategy.noise.scale
    if not isinstance(what, distributions.Uniform | distributions.Rademacher):
        return
    alpha = schedules.value_at(scale.alpha, case.progress)
    top = 1.0 if isinstance(what, distributions.Uniform) else what.rms
    lengths = _lengths(case) if scale.length == "document" else torch.full_like(batch.lengths, delta.shape[1])
    bound = top * alpha / (lengths * case.width).sqrt()
    noisy = batch.real & (strategy.noise.where(batch) != 0)
    ratio = (delta.abs().amax(-1) / bound)[noisy]
    assert (ratio <= 1 + 1e-6).all(), f"{ratio.max().item():.4f} of the bound"
    if alpha and noisy.sum() * case.width >= 64:
        assert ratio.max() > 0.5, f"only {ratio.max().item():.4f} of the bound is reached"


def _lengths(case: Case) -> Tensor:
    """Return every position's document length, counted from the documents and not by the package."""
    rows = [[len(document)] * len(document) for document in case.documents]
    if case.layout not in ("right", "left"):
        return torch.tensor([sum(rows, [])]).float()
    longest = max(map(len, rows))
    pad = [[1] * (longest - len(row)) for row in rows]
    pairs = zip(rows, pad, strict=True)
    return torch.tensor([gap + row if case.layout == "left" else row + gap for row, gap in pairs]).float()


def _same_key_same_delta_and_another_key_another(strategy: Strategy, case: Case) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batch, delta = _delta(strategy, case)
    assert torch.equal(before, torch.get_rng_state()), "the global random state moved"
    torch.manual_seed(1)
    assert torch.equal(delta, _delta(strategy, case)[1]), "the same key drew other numbers"
    other = _delta(strategy, replace(case, key=case.key ^ 1))[1]
    assert not delta.any() or delta.count_nonzero() < 8 or not torch.equal(delta, other), "another key, same numbers"


def _a_document_gets_the_same_noise_alone_and_among_others(strategy: Strategy, case: Case) -> None:
    if isinstance(strategy.noise, AdditiveNoise) and getattr(strategy.noise.scale, "length", "") == "padded":
        return  # the width of the batch is what this one asks for
    kept = case.documents[: len(case.documents) - _trailing_singles(case)]
    batch, delta = _delta(strategy, case)
    noise_of = [delta[batch.real & (batch.document == number)] for number in range(int(batch.document.max()) + 1)]
    for number, document in enumerate(kept):
        if document in kept[:number]:
            continue  # a copy draws numbers of its own
        alone = _delta(strategy, replace(case, documents=(document,), layout="right"))[1][0]
        near = torch.allclose(noise_of[number], alone, rtol=1e-4, atol=1e-7)
        assert near, f"document {number} of {case.layout} differs from the document alone"


def _numbers(strategy: Strategy, factor: float) -> Strategy:
    """Return the strategy with the numbers of its scale multiplied."""
    assert isinstance(strategy.noise, AdditiveNoise)
    scale: Any = strategy.noise.scale
    name = next(iter(scale.__dataclass_fields__))
    value = getattr(scale, name)
    return replace(strategy, noise=replace(strategy.noise, scale=replace(scale, **{name: _Times(value, factor)})))


@dataclass(frozen=True)
class _Times:
    value: schedules.Scalar
    factor: float

    def __call__(self, progress: float) -> float:
        return self.factor * schedules.value_at(self.value, progress)


def _strength_zero_is_no_noise_and_double_is_double(strategy: Strategy, case: Case) -> None:
    if not isinstance(strategy.noise, AdditiveNoise):
        return
    _, once = _delta(strategy, case)
    assert not _delta(_numbers(strategy, 0.0), case)[1].any(), "noise at strength 0"
    assert torch.equal(_delta(_numbers(strategy, 2.0), case)[1], 2 * once), "not linear in the strength"


BATCH_CHECKS: tuple[Callable[[Strategy, Case], None], ...] = (
    _delta_has_the_embeddings_shape,
    _delta_is_zero_on_padding_and_outside_where,
    _delta_is_within_its_bound,
    _same_key_same_delta_and_another_key_another,
    _a_document_gets_the_same_noise_alone_and_among_others,
    _strength_zero_is_no_noise_and_double_is_double,
)


def _mean_is_zero_and_rms_as_stated(strategy: Strategy) -> None:
    """Many draws at once: 64 documents of 16 tokens, 64 features."""
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
    for module in (distributions, noise, objectives, scales, schedules, tokens, registry):
        names |= vars(module)
    from neft_zoo import ascent

    if strategy.name == "custom":
        return
    home = vars(__import__(registry.entry(strategy.name).build.__module__, fromlist=["_"]))
    assert eval(repr(strategy), {**names, **vars(ascent), **home}) == strategy, repr(strategy)
    saved = strategy.to_dict()
    assert make(json.loads(json.dumps(saved))) == strategy, f"JSON: {saved}"
    assert make(yaml.safe_load(yaml.safe_dump(saved))) == strategy, f"YAML: {saved}"
    assert hash(strategy) == hash(make(saved))


class _Model(nn.Module):
    """An embedding and a head, enough for a tap."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


def _the_model_is_clean_outside_a_training_pass(strategy: Strategy) -> None:
    if strategy.noise is None or isinstance(strategy.noise, noise.AtLayers | noise.TokenEdit):
        return
    torch.manual_seed(0)
    model = _Model()
    ids = torch.arange(1, 13).view(2, 6)
    batch = Batch.from_inputs({"input_ids": ids, "labels": torch.where(torch.arange(6) < 3, IGNORED, ids)}, key=3)
    clean = model(ids)
    tap = Tap(model)
    with tap.open(strategy.noise, batch) as done:
        model(ids)
    assert done.deltas, "nothing was added in an open pass"
    state = torch.get_rng_state()
    for mode in (model.train, model.eval):
        mode()
        assert torch.equal(model(ids), clean), "the model is not clean outside an open pass"
    with tap.open(strategy.noise, batch), torch.no_grad():
        assert torch.equal(model(ids), clean), "the model is not clean without gradients"
    try:
        with tap.open(strategy.noise, batch):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(model(ids), clean), "the model is not clean after an exception"
    assert torch.equal(state, torch.get_rng_state()), "evaluation drew random numbers"
    tap.detach()


def _small_noise_survives_bf16(strategy: Strategy) -> None:
    if not isinstance(strategy.noise, AdditiveNoise):
        return
    model = _Model().to(torch.bfloat16)
    nn.init.normal_(model.embed.weight)
    ids = torch.arange(1, 61).view(4, 15)
    batch = Batch.from_inputs({"input_ids": ids, "labels": torch.where(torch.arange(15) < 8, IGNORED, ids)}, key=3)
    tap = Tap(model)
    with tap.open(strategy.noise, batch) as done:
        noisy = model.embed(ids)
    tap.detach()
    assert noisy.dtype == torch.bfloat16, f"the embedding became {noisy.dtype}"
    delta = done.deltas[-1]
    if delta.any():
        added = noisy.float() - model.embed(ids).float()
        assert (added * delta).sum() > 0.5 * delta.square().sum(), "the noise is lost in rounding"


VALUE_CHECKS: tuple[Callable[[Strategy], None], ...] = (
    _mean_is_zero_and_rms_as_stated,
    _repr_json_and_yaml_give_the_strategy_back,
)
MODEL_CHECKS: tuple[Callable[[Strategy], None], ...] = (
    _the_model_is_clean_outside_a_training_pass,
    _small_noise_survives_bf16,
)
