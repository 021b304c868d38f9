"""Asking a judge about every pair in both orders, and judges that are Python objects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tqdm.auto import tqdm

from neft_zoo.errors import NoiseError, shown
from neft_zoo.judging.cache import Cache
from neft_zoo.judging.pairs import Judgement, Pair, Question

# Number of the question, verdict or None, and in the latter case why.
Answer: TypeAlias = tuple[int, float | None, str]
VERDICTS = (0, 0.5, 1)
CHUNK = 16


class Judge(Protocol):
    """Who says which of two answers is better; `name` holds everything that its verdicts depend on."""

    name: str

    def ask(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Yield an answer to each question, in any order."""
        ...


class PythonJudge:
    """A judge with the method of TRL's pairwise judges, `judge(prompts, completions, shuffle_order)`.

    It returns 0 or 1 for the better completion of each prompt, here 0.5 for a tie too, and -1 where it failed. A
    judge that raises has failed on all the questions of the call. TRL 1.8 and later have none of their own; what was
    written for earlier versions fits.

    Args:
        judge: the object.
        name: what to call it.
        retries: how often to ask again where it failed.
    """

    def __init__(self, judge: Any, name: str, retries: int = 2) -> None:
        self.judge, self.name, self.retries = judge, name, retries

    def ask(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Ask a few questions at a time, and again where no verdict came."""
        for start in range(0, len(questions), CHUNK):
            waiting = list(range(start, min(start + CHUNK, len(questions))))
            for left in range(self.retries, -1, -1):
                answers, reason = self._verdicts([questions[i] for i in waiting])
                told = list(zip(waiting, answers, strict=True))
                yield from ((i, float(verdict), "") for i, verdict in told if verdict in VERDICTS)
                waiting = [i for i, verdict in told if verdict not in VERDICTS]
                if not waiting:
                    break
                if not left:
                    yield from ((i, None, reason) for i in waiting)

    def _verdicts(self, questions: list[Question]) -> tuple[list[Any], str]:
        """Return what the judge says of each question, and why some have no verdict."""
        try:
            found = self.judge.judge(
                prompts=[question.instruction for question in questions],
                completions=[[question.first, question.second] for question in questions],
                shuffle_order=False,
            )
        except Exception as error:  # a judge asks who knows what, over a network perhaps
            sentence = " ".join(str(error).split())[:200].rstrip(".")
            return [None] * len(questions), f"the judge raised {type(error).__name__}: {sentence}".rstrip(": ")
        if not isinstance(found, Sequence) or len(found) != len(questions):
            raise NoiseError(f"judge {self.name!r} must return {len(questions)} verdicts, got {shown(found)}.")
        return list(found), "the judge gave no verdict"


def load_judge(name: str, retries: int) -> PythonJudge:
    """Load `MODULE:NAME`, a judge or a class of one; the module may lie in the working directory.

    Raises:
        NoiseError: if there is none, or it has no method `judge`.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise NoiseError(
            f"judge must be MODULE:NAME of something that can be imported, got {name!r}: {error}."
        ) from None
    finally:
        sys.path.pop(0)
    judge = found() if isinstance(found, type) else found
    if not callable(getattr(judge, "judge", None)):
        raise NoiseError(f"judge {name!r} must have a method judge(prompts, completions, shuffle_order).")
    return PythonJudge(judge, name, retries)


def judge_pairs(
    judge: Judge, pairs: Sequence[Pair], cache: Cache, progress: bool = True
) -> tuple[list[Judgement], dict[str, int]]:
    """Ask about every pair in both orders; equal answers are a tie that nobody is asked about.

    Returns:
        A judgement per pair, missing unless there are verdicts in both orders; and how often each reason for a missing
        verdict came up.

    Raises:
        NoiseError: if the judge cannot be used at all, or no pair could be judged.
    """
    questions = list(dict.fromkeys(each for pair in pairs if pair.ours != pair.theirs for each in pair.questions()))
    verdicts = {each: cache.get(each.key(judge.name)) for each in questions}
    waiting = [each for each in questions if verdicts[each] is None]
    reasons: dict[str, int] = {}
    bar = tqdm(total=len(questions), initial=len(questions) - len(waiting), desc="verdicts",
               disable=None if progress else True)  # fmt: skip
    with bar:
        for i, verdict, reason in judge.ask(waiting):
            bar.update()
            if verdict is None:
                reasons[reason] = reasons.get(reason, 0) + 1
                continue
            cache.add(waiting[i].key(judge.name), verdict)
            verdicts[waiting[i]] = verdict
    found = [_judgement(pair, *(verdicts.get(each, 0.5) for each in pair.questions())) for pair in pairs]
    if all(judgement.preference is None for judgement in found):
        most = max(reasons, key=lambda reason: reasons[reason])
        raise NoiseError(f"the judge must judge at least one pair in both orders, but all failed, mostly: {most}.")
    return found, reasons


def _judgement(pair: Pair, ours_first: float | None, theirs_first: float | None) -> Judgement:
    orders = (None if ours_first is None else 1 - ours_first, theirs_first)
    present = [each for each in orders if each is not None]
    return Judgement(pair, sum(present) / 2 if len(present) == 2 else None, orders)
