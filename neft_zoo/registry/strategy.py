"""Strategy: a noise and an objective, under the name and arguments they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neft_zoo.noise.additive import AtLayers, AtPlaceholders, Layers, Noise, TokenEdit
from neft_zoo.noise.schedules import Schedule, schedule_to_dict
from neft_zoo.objectives.base import Defaults, Objective
from neft_zoo.objectives.simple import SinglePass
from neft_zoo.passes.weight_noise import WeightNoise


@dataclass(frozen=True)
class Strategy:
    """How to train with noise: what to add and how to spend the passes. A value: printable, comparable, JSON.

    Attributes:
        noise: what is added to embeddings or layer inputs, or how token ids are edited; None adds nothing.
        objective: how a step spends its forward passes.
        weights: what is done to the weights; None leaves them alone.
        name: the entry it was made from, or "custom".
        arguments: the entry's arguments, defaults included.
        version: the entry's version, raised whenever its numbers change.

    Raises:
        NoiseError: if the objective cannot work with the noise.
    """

    noise: Noise | TokenEdit | None
    objective: Objective = SinglePass()
    weights: WeightNoise | None = None
    name: str = "custom"
    arguments: Mapping[str, object] = field(default_factory=dict, hash=False)
    version: int = 0

    def __post_init__(self) -> None:
        self.objective.takes(self.noise)

    @property
    def clean(self) -> bool:
        """True if a step is the trainer's own and nothing else."""
        return self.noise is None and self.objective == SinglePass()

    @property
    def layers(self) -> Layers | bool:
        """Decoder layers whose inputs must be hooked: those that noise enters, or all that the objective compares."""
        return self.noise.layers if isinstance(self.noise, AtLayers) else self.objective.inputs

    @property
    def site(self) -> str:
        """Where it enters the model; an objective without a noise ascends on the embeddings or redraws dropout."""
        if self.noise is None:
            own = self.objective.site if isinstance(self.objective, Defaults) else "-"
            return "weights" if self.weights else own
        if isinstance(self.noise, AtLayers):
            return "placeholders" if isinstance(self.noise, AtPlaceholders) else "layers"
        return "token ids" if isinstance(self.noise, TokenEdit) else "embeddings"

    @property
    def family(self) -> str:
        """How it works: single pass, consistency, adversarial or weights."""
        return "weights" if self.weights else self.objective.family

    def to_dict(self) -> dict[str, object]:
        """Return what `make` reads back: the name and the arguments, in JSON's types.

        Raises:
            NoiseError: if an argument is a schedule function that no file can hold.
        """
        return {"name": self.name, **{key: _jsonable(value) for key, value in self.arguments.items()}}


def _jsonable(value: object) -> object:
    if isinstance(value, Schedule):
        return schedule_to_dict(value)
    return list(value) if isinstance(value, tuple) else value
