"""WHERE: the tokens that get noise; padding never does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch

Role: TypeAlias = Literal["real", "prompt", "completion"]


@runtime_checkable
class Where(Protocol):
    """Return a float32 weight per position: 0 for no noise, and always 0 on padding."""

    def __call__(self, batch: Batch) -> Float[Tensor, "B L"]: ...


@dataclass(frozen=True)
class Tokens:
    """All real tokens, or those of one role: `completion` is the tokens that the loss grades, `prompt` the others."""

    role: Role = "real"

    def __post_init__(self) -> None:
        if self.role not in ("real", "prompt", "completion"):
            raise NoiseError(f"where must be 'real', 'prompt' or 'completion', got {self.role!r}.")

    def __call__(self, batch: Batch) -> Float[Tensor, "B L"]:
        if self.role == "real":
            return batch.real.float()
        if batch.graded is None:
            raise NoiseError(f"noise on {self.role!r} tokens needs labels in the batch, got a batch without labels.")
        chosen = batch.real & (batch.graded if self.role == "completion" else ~batch.graded)
        return chosen.float()
