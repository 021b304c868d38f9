"""What cannot work between a framework and a strategy, said before a model is loaded."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from neft_zoo.errors import NoiseError
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.stock_noise import check_alone as check_alone

# The versions whose sources the hooks were checked against.
KNOWN = {"axolotl": "~=0.19.0", "llamafactory": "==0.9.5", "ms-swift": "~=4.6.0"}


def check_version(framework: str) -> None:
    """Raise unless a framework is installed, in a version that its hook is known to fit.

    Args:
        framework: the name of its distribution.

    Raises:
        NoiseError: if it is not.
    """
    try:
        found = version(framework)
    except PackageNotFoundError:
        found = None
    if found is None or not SpecifierSet(KNOWN[framework], prereleases=True).contains(found):
        raise NoiseError(
            f"noise needs {framework}{KNOWN[framework]}, got {found or 'no such package'}: give a trainer of any "
            "version to neft_zoo.enable(trainer, noise)."
        )


def check_recomputation(strategy: Strategy, reentrant: bool, remedy: str) -> None:
    """Raise for a strategy of several passes where activations are recomputed by reentrant checkpointing.

    Args:
        strategy: the strategy.
        reentrant: whether they are.
        remedy: what to write instead, in the framework's words.

    Raises:
        NoiseError: if both hold.
    """
    if reentrant and strategy.objective.passes > 1:
        raise NoiseError(
            f"gradient checkpointing must not be reentrant with {strategy.name}, which runs several forward passes a "
            f"step, got reentrant checkpointing, this framework's default: set {remedy}."
        )
