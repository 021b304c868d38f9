"""Noise that depends on the embedding table or on the training data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from neft_zoo.errors import NoiseError
from neft_zoo.noise import randomness
from neft_zoo.noise.additive import AdditiveNoise, BlockDraw, Noise, NoiseTraits
from neft_zoo.noise.blocks import token_norms
from neft_zoo.noise.schedules import Scalar, check_number, check_scalar, value_at

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.noise.batch import Batch


@dataclass(frozen=True)
class Setup:
    """What a noise can read once, before training: the embedding table and the token counts."""

    table: Float[Tensor, "V D"]
    count_tokens: Callable[[], Int[Tensor, " V"]] | None


@runtime_checkable
class Unprepared(Protocol):
    """A noise that must be prepared with the model or the data before use."""

    def prepare(self, setup: Setup) -> Noise:
        """Return the noise that is ready for use."""
        ...


@dataclass(frozen=True)
class MetricLaplace(NoiseTraits):
    """l * v per token: v uniform on the sphere, l ~ Gamma(D, 1/eta), so the mean norm is D / eta."""

    eta: Scalar

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scalar("eta", self.eta, 1e-6)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        draw = MetricLaplace.in_parts(self, embeds, batch)  # not a subclass's, which may draw by this method
        return draw(embeds.reshape(-1, embeds.shape[-1]), slice(None)).view(embeds.shape)

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> BlockDraw:
        keys, width = batch.stream("what").flatten(), embeds.shape[-1]
        length = randomness.gamma(batch.stream("length"), batch.stream("accept"), width)
        length = (length / value_at(self.eta, batch.progress) * batch.real).view(-1, 1)

        def draw(rows: Float[Tensor, "N D"], part: slice) -> Float[Tensor, "N D"]:
            direction = randomness.normal(keys[part], width)
            return direction.mul_(length[part] / token_norms(direction)[:, None])

        return draw


@dataclass(frozen=True)
class ByFrequency(NoiseTraits):
    """rho * w(token) * z, with more noise on rarer tokens: w = count**-exponent, with mean 1 over the training
    tokens."""

    rho: Scalar
    exponent: float
    weights: Float[Tensor, " V"] | None = field(default=None, repr=False, compare=False)

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scalar("rho", self.rho)
        check_number("exponent", self.exponent)

    def prepare(self, setup: Setup) -> ByFrequency:
        if setup.count_tokens is None:
            raise NoiseError("token_frequency needs the counts of the training tokens, got none (token_counts=).")
        import torch  # late: `neft-zoo list` works without it

        counts = torch.as_tensor(setup.count_tokens()).double().cpu()
        words = setup.table.shape[0]
        if counts.shape != (words,):
            raise NoiseError(f"token_counts must be one count for each of {words} tokens, got {tuple(counts.shape)}.")
        if not (counts >= 0).all() or not 0 < counts.sum() < float("inf"):
            raise NoiseError(f"token_counts must be >= 0, finite and not all 0, got {counts.tolist()[:4]} ...")
        weights = counts.clamp(min=1) ** -self.exponent
        weights = (weights * counts.sum() / (weights * counts).sum()).float()
        if not weights.isfinite().all():
            raise NoiseError(f"exponent must be small enough for weights that are finite, got {self.exponent}.")
        return replace(self, weights=weights.to(setup.table.device))

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        draw = ByFrequency.in_parts(self, embeds, batch)  # not a subclass's, which may draw by this method
        return draw(embeds.reshape(-1, embeds.shape[-1]), slice(None)).view(embeds.shape)

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> BlockDraw:
        if self.weights is None:
            raise NoiseError("token_frequency must be prepared with the counts of the training tokens first.")
        size = value_at(self.rho, batch.progress) * self.weights.to(embeds.device)[batch.input_ids] * batch.real
        size, keys, width = size.view(-1, 1), batch.stream("what").flatten(), embeds.shape[-1]
        return lambda rows, part: randomness.normal(keys[part], width).mul_(size[part])


@dataclass(frozen=True)
class Projected(NoiseTraits):
    """Another noise, projected onto the k principal directions of the embedding table, or onto their complement."""

    noise: Noise
    k: int
    keep: Literal["off", "onto"]
    basis: Float[Tensor, "D k"] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number("k", self.k, 1)
        if self.keep not in ("off", "onto"):
            raise NoiseError(f"keep must be 'off' or 'onto', got {self.keep!r}.")

    def prepare(self, setup: Setup) -> Projected:
        from torch import linalg

        width = setup.table.shape[1]
        if self.k >= width:
            raise NoiseError(f"k must be below the model's width {width}, got {self.k}.")
        table = setup.table.detach().double()
        centred = table - table.mean(0)
        directions = linalg.eigh(centred.T @ centred).eigenvectors  # in ascending order
        return replace(self, basis=directions[:, -self.k :].float().contiguous())

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        delta = self.noise(embeds, batch)
        return self.project(delta.flatten(0, 1)).view_as(delta)

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> BlockDraw | None:
        draw = self.noise.in_parts(embeds, batch) if isinstance(self.noise, NoiseTraits) else None
        if draw is None:
            return None
        own = type(self.noise) is AdditiveNoise  # its numbers are drawn for this call

        def projected(rows: Float[Tensor, "N D"], part: slice) -> Float[Tensor, "N D"]:
            delta = draw(rows, part)
            return self.project(delta, out=delta if own else None)

        return projected

    def project(self, rows: Float[Tensor, "N D"], out: Float[Tensor, "N D"] | None = None) -> Float[Tensor, "N D"]:
        """Return the projection of a noise, token by token, in `out` (which may be `rows`) if given."""
        if self.basis is None:
            raise NoiseError("token_subspace must be prepared with the model's embedding table first.")
        import torch

        basis = self.basis.to(rows.device)
        with torch.autocast(rows.device.type, enabled=False):  # in bf16 the projection would not be orthogonal
            onto = rows @ basis
            if self.keep == "onto":
                return torch.mm(onto, basis.T, out=out)
            return torch.addmm(rows, onto, basis.T, alpha=-1, out=out)
