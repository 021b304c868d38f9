"""Instruction following without a judge: IFEval's prompts and lm-evaluation-harness's checkers, offline.

Zhou et al., "Instruction-Following Evaluation for Large Language Models", https://arxiv.org/abs/2311.07911.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from neft_zoo.errors import require
from neft_zoo.evaluation.effect_results import InstructionFollowing, Rate
from neft_zoo.evaluation.generation import generate
from neft_zoo.evaluation.intervals import cluster_interval, wilson
from neft_zoo.evaluation.options import Options
from neft_zoo.evaluation.records import Record, prompt_tokens, shaped_like
from neft_zoo.evaluation.shipped import shipped_records, spread
from neft_zoo.evaluation.text import mean

if TYPE_CHECKING:
    from neft_zoo.evaluation.subject import Subject

TASK = "ifeval"  # its name in the harness
# Instructions whose checkers split sentences by an nltk model that is not part of nltk's package:
# https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/tasks/ifeval/instructions_util.py
NEED_PUNKT = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})

Verdicts: TypeAlias = Mapping[str, "bool | Sequence[bool]"]
Checker: TypeAlias = Callable[[Record, Sequence[str]], Verdicts]


@dataclass(frozen=True)
class Benchmark:
    """The IFEval prompts that can be checked here.

    Attributes:
        records: the prompts with their instructions.
        skipped: instructions that cannot be checked, and their number of prompts.
        left_out: number of prompts with one of these instructions.
        check: lm-evaluation-harness's checker for an answer to a record.
    """

    records: Sequence[Record]
    skipped: Mapping[str, int]
    left_out: int
    check: Checker


def as_part(options: Options, tasks: Sequence[str]) -> tuple[Options, Sequence[str]]:
    """Return options and tasks in which the task `ifeval` is replaced by the offline part, which has intervals."""
    if TASK not in tasks:
        return options, tasks
    parts = tuple(dict.fromkeys((*options.parts, "instructions")))
    return replace(options, parts=parts), [task for task in tasks if task != TASK]


def load_benchmark() -> Benchmark:
    """Return IFEval without the prompts whose checkers lack nltk data.

    Raises:
        NoiseError: if lm-evaluation-harness is not installed, or langdetect, which its checkers use.
    """
    what = "following instructions"
    nltk = require("nltk", what, "eval")
    require("langdetect", what, "eval").DetectorFactory.seed = 0  # it samples features
    with _no_downloads(nltk):
        check = require("lm_eval.tasks.ifeval.utils", what, "eval").process_results
    records, missing = shipped_records("ifeval"), frozenset() if _has_punkt(nltk) else NEED_PUNKT
    skipped = Counter(kind for record in records for kind in {*record["instruction_id_list"]} & missing)
    checkable = [record for record in records if not {*record["instruction_id_list"]} & missing]
    return Benchmark(checkable, dict(skipped), len(records) - len(checkable), check)


def instruction_following(
    subject: Subject, benchmark: Benchmark, prompts: int | None, max_new_tokens: int
) -> InstructionFollowing:
    """Return IFEval's accuracies on greedy answers, without a system prompt or repetition penalty.

    Args:
        subject: the model.
        benchmark: prompts and their checker.
        prompts: number of prompts, evenly spread over the benchmark's order; None for all.
        max_new_tokens: maximum length of an answer.
    """
    records = spread(benchmark.records, prompts)
    example = subject.rows["train"][0].record
    shaped = [shaped_like(example, record["prompt"]) for record in records]
    with subject.autocast():
        answers = generate(
            subject.model,
            subject.tokenizer,
            [prompt_tokens(subject.tokenizer, record, subject.template) for record in shaped],
            max_new_tokens=max_new_tokens,
            batch_size=subject.batch_size,
            progress=subject.progress,
        )
    verdicts = [benchmark.check(record, [answer.text]) for record, answer in zip(records, answers, strict=True)]
    instructions = sum(len(record["instruction_id_list"]) for record in records)
    return InstructionFollowing(
        prompts=len(records),
        instructions=instructions,
        subset=subset_text(len(records), benchmark),
        skipped=benchmark.skipped,
        max_new_tokens=max_new_tokens,
        unended=mean([float(not answer.ended) for answer in answers]) or 0.0,
        prompt_strict=_prompt_rate(verdicts, "prompt_level_strict_acc"),
        prompt_loose=_prompt_rate(verdicts, "prompt_level_loose_acc"),
        instruction_strict=_instruction_rate(verdicts, "inst_level_strict_acc"),
        instruction_loose=_instruction_rate(verdicts, "inst_level_loose_acc"),
    )


def subset_text(count: int, benchmark: Benchmark) -> str:
    """Return a description of the prompts that were used, and of how many could not be."""
    text = f"{count} of {len(benchmark.records)} prompts{', evenly spread' if count < len(benchmark.records) else ''}"
    if not benchmark.left_out:
        return text
    return f"{text}; {benchmark.left_out} more left out, as nltk's punkt_tab is missing"


def _prompt_rate(verdicts: Sequence[Verdicts], key: str) -> Rate:
    followed = sum(bool(verdict[key]) for verdict in verdicts)
    return Rate(followed / len(verdicts), wilson(followed / len(verdicts), len(verdicts)))


def _instruction_rate(verdicts: Sequence[Verdicts], key: str) -> Rate:
    by_prompt = [list(verdict[key]) for verdict in verdicts]  # type: ignore[arg-type]
    followed = [value for values in by_prompt for value in values]
    return Rate(sum(followed) / len(followed), cluster_interval(by_prompt))


def _has_punkt(nltk: Any) -> bool:
    try:
        nltk.data.find("tokenizers/punkt_tab")
        return True
    except LookupError:
        return False


@contextmanager
def _no_downloads(nltk: Any) -> Iterator[None]:
    """Prevent the harness from downloading nltk data when its checkers are imported."""
    download, nltk.download = nltk.download, lambda *args, **settings: False
    try:
        yield
    finally:
        nltk.download = download
