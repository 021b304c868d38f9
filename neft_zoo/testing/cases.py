"""Random batches in every layout, for checking strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.batch import IGNORED, Batch
from neft_zoo.noise.data_dependent import Setup, Unprepared
from neft_zoo.registry.strategy import Strategy

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from jaxtyping import Float, Int

LAYOUTS = ("right", "left", "packed", "padding-free")
VOCABULARY = 64


@dataclass(frozen=True)
class Case:
    """Documents, with a layout and the sizes of a model."""

    documents: tuple[tuple[int, ...], ...]
    layout: str
    labelled: bool
    width: int
    dtype: torch.dtype
    key: int
    progress: float

    def inputs(self) -> dict[str, Tensor]:
        """Return a collator's output for the model; the second half of every document is graded."""
        labels = [[*[IGNORED] * (len(d) // 2), *d[len(d) // 2 :]] for d in self.documents]
        inputs = _padded if self.layout in ("right", "left") else _flat
        collated = inputs(self.layout, [list(d) for d in self.documents], labels)
        return collated if self.labelled else {name: value for name, value in collated.items() if name != "labels"}

    def batch(self) -> Batch:
        return Batch.from_inputs(self.inputs(), key=self.key, progress=self.progress, fill_id=0)

    def embeds(self, batch: Batch) -> Float[Tensor, "B L D"]:
        """Return embeddings that depend only on the token, like a model's."""
        return self.table()[batch.input_ids].to(self.dtype)

    def table(self) -> Float[Tensor, "V D"]:
        generator = torch.Generator().manual_seed(self.width)
        return torch.randn(VOCABULARY, self.width, generator=generator)


def needs_labels(strategy: Strategy) -> bool:
    """Return whether the noise requires labels in a batch."""
    case = Case(((0, 1, 2, 3),), "right", False, widths(strategy).stop, torch.float32, 0, 0.0)
    try:
        delta_of(strategy, case)
    except NoiseError:
        return True
    return False


def widths(strategy: Strategy) -> range:
    """Return the model widths to test: small ones, unless the noise requires larger ones."""
    if isinstance(strategy.noise, TokenEdit):  # it does not use embeddings
        return range(2, 32)
    try:
        ready(strategy, torch.randn(VOCABULARY, 2))
    except NoiseError:
        return range(65, 80)
    return range(2, 32)


def ready(strategy: Strategy, table: Float[Tensor, "V D"]) -> Noise:
    """Return the noise, prepared for an embedding table and for counts in which every token occurs."""
    noise = strategy.noise
    assert noise is not None and not isinstance(noise, TokenEdit)
    if isinstance(noise, Unprepared):
        return noise.prepare(Setup(table, lambda: torch.arange(1, len(table) + 1)))
    return noise


def delta_of(strategy: Strategy, case: Case) -> tuple[Batch, Float[Tensor, "B L D"]]:
    """Return the batch and the delta for its embeddings; for an edit of token ids, the change of the ids."""
    batch = case.batch()
    if isinstance(strategy.noise, TokenEdit):
        change = strategy.noise.edit(batch) - batch.input_ids
        return batch, change[..., None].float().expand(-1, -1, case.width)
    return batch, ready(strategy, case.table())(case.embeds(batch), batch).detach()


def cases(labelled: bool, widths: range) -> SearchStrategy[Case]:
    from hypothesis import strategies as st

    document = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=17).map(tuple)
    return st.builds(
        Case,
        documents=st.lists(document, min_size=1, max_size=4).map(tuple),
        layout=st.sampled_from(LAYOUTS),
        labelled=st.just(True) if labelled else st.booleans(),
        width=st.integers(widths.start, widths.stop),
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
