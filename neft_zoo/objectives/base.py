"""The protocol of objectives, and its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from neft_zoo.noise.additive import Noise, TokenEdit

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.passes.step import Step


Family: TypeAlias = Literal["single pass", "consistency", "adversarial"]


@runtime_checkable
class Objective(Protocol):
    """Computes the loss of a step from its passes, independent of the trainer.

    Attributes:
        family: how the passes are used.
        passes: forward passes per batch, each with a backward pass.
        hidden: whether it compares last hidden states.
        inputs: whether it compares the inputs of decoder layers.
    """

    family: ClassVar[Family]
    hidden: ClassVar[bool]
    inputs: ClassVar[bool]

    @property
    def passes(self) -> int: ...

    def check(self, model: nn.Module) -> None: ...

    def takes(self, noise: Noise | TokenEdit | None) -> None: ...

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]: ...


class Defaults:
    """The optional members of an objective and their defaults."""

    hidden: ClassVar[bool] = False
    inputs: ClassVar[bool] = False
    site: ClassVar[str] = "-"  # where a strategy without a noise changes the model

    def check(self, model: nn.Module) -> None:
        """Raise a `NoiseError`, before training, if the model lacks what the objective needs."""

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        """Raise a `NoiseError`, when a strategy is created, if the objective cannot work with this noise."""


class ComparesPredictions(Defaults):
    """An objective that compares the predicted distributions of its passes, over tokens or classes."""

    hidden: ClassVar[bool] = True

    def check(self, model: nn.Module) -> None:
        from neft_zoo.passes.anatomy import check_classes, task_of  # late: `neft-zoo list` works without torch
        from neft_zoo.passes.layers import find_backbones
        from neft_zoo.passes.lm_head import LanguageHead

        find_backbones(model)
        task = task_of(model)
        if task in ("tokens", "sequence"):
            check_classes(model)
        elif task != "span":
            LanguageHead(model)
