"""Evaluation with the noise off: losses, answers, memorization, text, robustness and benchmark tasks.

`evaluate` returns an `EvaluationReport` of a model; the module of each measure can also be used alone.
"""

import importlib
from typing import TYPE_CHECKING

# Loaded on first use, so that the command line does not need torch.
_HOME = {
    "evaluate": "run",
    "EvaluationReport": "results",
    "Options": "options",
    "Subject": "subject",
    "prepare": "subject",
}
__all__ = [*_HOME]

if TYPE_CHECKING:
    from neft_zoo.evaluation.options import Options as Options
    from neft_zoo.evaluation.results import EvaluationReport as EvaluationReport
    from neft_zoo.evaluation.run import evaluate as evaluate
    from neft_zoo.evaluation.subject import Subject as Subject
    from neft_zoo.evaluation.subject import prepare as prepare


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'neft_zoo.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"neft_zoo.evaluation.{_HOME[name]}"), name)
