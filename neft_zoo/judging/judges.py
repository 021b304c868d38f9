"""Asking a judge about every pair in both orders; and judges that are Python objects."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeAlias

from neft_zoo.errors import NoiseError, one_line, shown
from neft_zoo.evaluation.progress import progress_bar
from neft_zoo.judging.cache import Cache
from neft_zoo.judging.pairs import Judgement, Pair, Question

# Index of the question, and its verdict, or None with the reason.
Answer: TypeAlias = tuple[int, float | None, str]
VERDICTS = (0, 0.5, 1)
CHUNK = 16


class Judge(Protocol):
    """A judge of pairs of answers; `name` includes everything that its verdicts depend on."""

    name: str

    def ask(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Yield an answer to each question, in any order."""
        ...


class PairwiseJudge(Protocol):
    """The interface of TRL's pairwise judges."""

    def judge(self, prompts: list[str], completions: list[list[str]], shuffle_order: bool) -> Sequence[float]:
        """Return the index of the better completion for each prompt, or -1 if the judge failed."""
        ...


class PythonJudge:
    """A judge with the interface of TRL's pairwise judges, `judge(prompts, completions, shuffle_order)`.

    It returns 0 or 1 for the better completion of each prompt, or -1 if it failed; here 0.5 is also accepted, for a
    tie. If a judge raises, it has failed on all questions of the call. TRL 1.8 and later have no such judges, but
    those written for earlier versions work.

    Args:
        judge: the object.
        title: what messages call it.
        retries: number of further attempts after a failure.
        version: verdicts of another version are not taken from the cache.
    """

    def __init__(self, judge: PairwiseJudge, title: str, retries: int = 2, version: str = "") -> None:
        self.judge, self.title, self.retries = judge, title, retries
        self.name = f"{title} {version}" if version else title

    def ask(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Yield verdicts, with a few questions per call; failed ones are asked again."""
        for start in range(0, len(questions), CHUNK):
            pending = list(range(start, min(start + CHUNK, len(questions))))
            for attempts_left in range(self.retries, -1, -1):
                verdicts, reason = self._verdicts([questions[i] for i in pending])
                answers = list(zip(pending, verdicts, strict=True))
                yield from ((i, float(verdict), "") for i, verdict in answers if verdict in VERDICTS)
                pending = [i for i, verdict in answers if verdict not in VERDICTS]
                if not pending:
                    break
                if not attempts_left:
                    yield from ((i, None, reason) for i in pending)

    def _verdicts(self, questions: list[Question]) -> tuple[list[float], str]:
        """Return the judge's verdicts, and the reason for missing ones."""
        try:
            verdicts = self.judge.judge(
                prompts=[question.instruction for question in questions],
                completions=[[question.first, question.second] for question in questions],
                shuffle_order=False,
            )
        except Exception as error:  # a judge may fail in any way, for example over a network
            message = f"{type(error).__name__}: {one_line(error, 200)}" if str(error) else type(error).__name__
            return [-1.0] * len(questions), f"the judge raised {message}"
        if not isinstance(verdicts, Sequence) or len(verdicts) != len(questions):
            raise NoiseError(f"judge {self.title!r} must return {len(questions)} verdicts, got {shown(verdicts)}.")
        return list(verdicts), "the judge gave no verdict"


def load_judge(name: str, retries: int) -> PythonJudge:
    """Return the judge `MODULE:NAME`, an object or its class; the module may be in the working directory.

    Raises:
        NoiseError: if it does not exist, or has no method `judge`.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        imported = importlib.import_module(module)
        judge = getattr(imported, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        accepted = "MODULE:NAME of something that can be imported"
        raise NoiseError(f"judge must be {accepted}, got {name!r}: {one_line(error)}.") from None
    finally:
        sys.path.pop(0)
    judge = judge() if isinstance(judge, type) else judge
    if not callable(getattr(judge, "judge", None)):
        raise NoiseError(f"judge {name!r} must have a method judge(prompts, completions, shuffle_order).")
    return PythonJudge(judge, name, retries, _version(imported))


def _version(module: ModuleType) -> str:
    """Return a hash of a module's source: an edited judge must be asked again."""
    path = getattr(module, "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path and Path(path).is_file() else ""


def judge_pairs(
    judge: Judge, pairs: Sequence[Pair], cache: Cache, progress: bool = True
) -> tuple[list[Judgement], dict[str, int]]:
    """Return judgements of pairs in both orders; equal answers are a tie, without a question.

    Returns:
        A judgement per pair, missing unless there are verdicts in both orders; and the count of each reason for a
        missing verdict.

    Raises:
        NoiseError: if the judge cannot be used, or no pair could be judged.
    """
    questions = list(dict.fromkeys(q for pair in pairs if pair.ours != pair.theirs for q in pair.questions()))
    verdicts = {question: cache.get(question.key(judge.name)) for question in questions}
    pending = [question for question in questions if verdicts[question] is None]
    reasons: Counter[str] = Counter()
    cached = len(questions) - len(pending)
    with progress_bar(None, "verdicts", total=len(questions), initial=cached, shown=progress) as bar:
        for i, verdict, reason in judge.ask(pending):
            bar.update()
            if verdict is None:
                reasons[reason] += 1
                continue
            cache.add(pending[i].key(judge.name), verdict)
            verdicts[pending[i]] = verdict
    judgements = [_judgement(pair, verdicts) for pair in pairs]
    if all(judgement.preference is None for judgement in judgements):
        most = max(reasons, key=lambda reason: reasons[reason])
        raise NoiseError(f"the judge must judge at least one pair in both orders, but all failed, mostly: {most}.")
    return judgements, dict(reasons)


def _judgement(pair: Pair, verdicts_by_question: Mapping[Question, float | None]) -> Judgement:
    if pair.ours == pair.theirs:
        return Judgement(pair, 0.5)
    ours_first, theirs_first = (verdicts_by_question[question] for question in pair.questions())
    orders = (None if ours_first is None else 1 - ours_first, theirs_first)
    verdicts = [verdict for verdict in orders if verdict is not None]
    return Judgement(pair, sum(verdicts) / 2 if len(verdicts) == 2 else None, orders)
