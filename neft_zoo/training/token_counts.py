"""Token counts of the training data, for noise that depends on them; saved with the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.files import replacing

if TYPE_CHECKING:
    from jaxtyping import Int

FILE = "noise_token_counts.safetensors"
# The counts, or a function that counts.
Counts: TypeAlias = "Int[Tensor, ' V'] | Callable[[], Int[Tensor, ' V']]"


class TokenCounts:
    """The count of each token in the training data, computed on first use.

    Args:
        counts: the counts, or a function that counts; None if unavailable.

    Attributes:
        known: the counts, or None until they are computed.
    """

    def __init__(self, counts: Counts | None) -> None:
        self.known = counts if isinstance(counts, Tensor) else None
        self._count = None if isinstance(counts, Tensor) else counts

    @property
    def can_be_known(self) -> bool:
        """True if the counts are known or can be computed."""
        return self.known is not None or self._count is not None

    def __call__(self) -> Int[Tensor, " V"]:
        """Return the counts.

        Raises:
            NoiseError: if they are unavailable.
        """
        if self.known is None:
            if self._count is None:
                raise NoiseError("token_counts must be given to a noise that depends on them, got none.")
            self.known = self._count()
        return self.known


def count_tokens(data: Any, vocabulary: int) -> Int[Tensor, " V"]:
    """Return the count of each token id below `vocabulary` in a tokenized dataset, without what its masks hide.

    Raises:
        NoiseError: if the records hold no `input_ids`, the data is a stream, or a token is not in the vocabulary.
    """
    if data is None or not hasattr(data, "__len__"):
        raise NoiseError(f"token_counts must be given for training data without a length, got {type(data).__name__}.")
    counts = torch.zeros(vocabulary, dtype=torch.long)
    # A dataset that is only indexed need not raise an IndexError at its end.
    records = data if hasattr(data, "__iter__") else map(data.__getitem__, range(len(data)))
    for record in cast(Iterable[dict[str, Any]], records):
        if "input_ids" not in record:
            raise NoiseError(f"token_counts must be given for records without input_ids, got {sorted(record)}.")
        ids = torch.as_tensor(record["input_ids"]).flatten().long()
        mask = record.get("attention_mask")
        if mask is not None and (real := torch.as_tensor(mask).flatten()).shape == ids.shape:
            ids = ids[real != 0]
        if len(ids) and int(ids.max()) >= vocabulary:
            raise NoiseError(
                f"training tokens must be below the model's vocabulary {vocabulary}, got {int(ids.max())}."
            )
        counts += torch.bincount(ids, minlength=vocabulary)
    return counts


def save_counts(folder: Path, counts: Int[Tensor, " V"]) -> None:
    """Write token counts to a folder, whole or not at all.

    Raises:
        NoiseError: if they cannot be written.
    """
    with replacing(folder / FILE) as partial:
        save_file({"counts": counts.cpu().contiguous()}, partial)


def load_counts(folder: Path) -> Int[Tensor, " V"] | None:
    """Return the token counts saved in a folder, or None."""
    return load_file(folder / FILE)["counts"] if (folder / FILE).exists() else None
