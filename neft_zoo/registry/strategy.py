"""Strategy: a noise and an objective, with the name and arguments that they were created from."""

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
    """How to train with noise: what to add and how to use the passes. Printable, comparable and JSON-serializable.

    Attributes:
        noise: what is added to embeddings or layer inputs, or how token ids are edited; None adds nothing.
        objective: how a step spends its forward passes.
        weights: how the weights are changed; None for no change.
        name: the entry it was created from, or "custom".
        arguments: the entry's arguments, defaults included.
        version: the entry's version, increased whenever its results change.

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
        """True if the trainer's step is unchanged."""
        return self.noise is None and self.objective == SinglePass()

    @property
    def layers(self) -> Layers | bool:
        """The decoder layers whose inputs must be hooked, for the noise or for the objective."""
        return self.noise.layers if isinstance(self.noise, AtLayers) else self.objective.inputs

    @property
    def site(self) -> str:
        """The site where the model is perturbed; without a noise, that of the objective's ascent or of dropout."""
        if self.noise is None:
            own = self.objective.site if isinstance(self.objective, Defaults) else "-"
            return "weights" if self.weights else own
        if isinstance(self.noise, AtLayers):
            return "placeholders" if isinstance(self.noise, AtPlaceholders) else "layers"
        return "token ids" if isinstance(self.noise, TokenEdit) else "embeddings"

    @property
    def family(self) -> str:
        """The kind of method: single pass, consistency, adversarial or weights."""
        return "weights" if self.weights else self.objective.family

    def to_dict(self) -> dict[str, object]:
        """Return the name and arguments as JSON types, which `make` reads back.

        Raises:
            NoiseError: if an argument is a custom schedule, which cannot be saved.
        """
        return {"name": self.name, **{key: _jsonable(value) for key, value in self.arguments.items()}}


def _jsonable(value: object) -> object:
    if isinstance(value, Schedule):
        return schedule_to_dict(value)
    return list(value) if isinstance(value, tuple) else value
