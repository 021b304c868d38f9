"""Optional libraries that commands need, checked before a command starts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from neft_zoo.errors import require


def _always(options: Namespace) -> bool:
    return True


def _asks_an_endpoint(options: Namespace) -> bool:
    return options.judge == "endpoint" and options.human is None and options.annotations is None


@dataclass(frozen=True)
class Need:
    """A library that a command cannot work without.

    Attributes:
        command: name of the command.
        module: name of the library's module.
        extra: the extra of this package that installs it.
        when: returns whether the library is needed with these options.
        what: what needs it, for the message; by default the command.
    """

    command: str
    module: str
    extra: str
    when: Callable[[Namespace], bool] = _always
    what: str = ""


NEEDS = (
    Need("compare", "rich", "compare"),
    Need("compare", "scipy", "compare"),
    Need("compare", "ray", "ray", lambda options: options.ray is not None, "--ray"),
    Need("report", "scipy", "compare"),
    Need("report", "matplotlib", "compare", lambda options: options.format == "html", "an HTML report"),
    Need("report", "jinja2", "compare", lambda options: options.format == "html", "an HTML report"),
    Need("tune", "optuna", "tune"),
    Need("tune", "scipy", "tune"),
    Need("evaluate", "rouge_score", "eval", lambda options: "memorization" in options.parts, "memorization"),
    Need("evaluate", "sacrebleu", "eval", lambda options: "memorization" in options.parts, "memorization"),
    Need("evaluate", "lm_eval", "eval", lambda options: bool(options.tasks), "a benchmark task"),
    Need("evaluate", "lm_eval", "eval", lambda options: "instructions" in options.parts, "following instructions"),
    Need("evaluate", "matplotlib", "plot", lambda options: not options.no_plots, "a plot (--no_plots draws none)"),
    Need("alpha", "matplotlib", "plot", lambda options: not options.no_plots, "a plot (--no_plots draws none)"),
    Need("judge", "scipy", "judge", lambda options: options.human is None),
    Need("judge", "openai", "judge", _asks_an_endpoint, "an endpoint as the judge"),
)


def check_extras(command: str, options: Namespace) -> None:
    """Raise if a library that a command needs is not installed.

    Raises:
        NoiseError: with the extra that installs it.
    """
    for need in NEEDS:
        if need.command == command and need.when(options):
            require(need.module, need.what or f"neft-zoo {command}", need.extra)
