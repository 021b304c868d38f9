"""Forgetting: loss on unrelated text and answers, compared with the model before fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft import PeftModel

from neft_zoo.evaluation.effect_results import Forgetting, LossChange
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.records import shaped_like
from neft_zoo.evaluation.results import LossSummary
from neft_zoo.evaluation.shipped import shipped_records
from neft_zoo.evaluation.subject import Row, Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class UnrelatedRows:
    """Tokenized records of both kinds: textbook passages and GSM8K problems."""

    general: Sequence[Row]
    gsm8k: Sequence[Row]


def unrelated_rows(subject: Subject, records: int | None) -> UnrelatedRows:
    """Return the shipped unrelated records, tokenized by a subject's trainer.

    No EOS token is appended to passages, since its loss would measure how well the model ends an answer. GSM8K
    problems take the format of the training records, and only their answers are graded.

    Args:
        subject: the model and its data preparation.
        records: number of records of each kind; None for all.
    """
    longest = subject.settings.max_length
    texts = [record["text"] for record in shipped_records("general", records)]
    passages = [list(subject.tokenizer(text)["input_ids"])[:longest] for text in texts]  # type: ignore[arg-type]
    example = subject.rows["train"][0].record
    problems = [
        shaped_like(example, record["prompt"][0]["content"], record["completion"][0]["content"])
        for record in shipped_records("gsm8k", records)
    ]
    general = [Row(ids, ids, {"text": text}) for ids, text in zip(passages, texts, strict=True)]
    return UnrelatedRows(general, subject.tokenized("gsm8k", problems))


def forgetting(subject: Subject, rows: UnrelatedRows, before: PreTrainedModel | None = None) -> Forgetting:
    """Return the losses on unrelated records, compared with the model before fine-tuning.

    Args:
        subject: the model after fine-tuning.
        rows: tokenized records.
        before: the model before fine-tuning; None uses the base model of an adapter, and skips the comparison
            otherwise.
    """
    after = {name: _loss(subject, name, kind) for name, kind in vars(rows).items()}
    base, context = _base(subject, before)
    if base is None or not _has_all_tokens(base, rows):
        return Forgetting(**{name: _change(losses, None) for name, losses in after.items()})
    with context:
        earlier = {name: _loss(base, f"{name}, before", kind).loss for name, kind in vars(rows).items()}
    return Forgetting(**{name: _change(losses, earlier[name]) for name, losses in after.items()})


def _base(subject: Subject, before: PreTrainedModel | None) -> tuple[Subject | None, AbstractContextManager[None]]:
    if before is not None:
        return subject.with_model(before), nullcontext()
    if isinstance(subject.model, PeftModel):
        return subject, subject.model.disable_adapter()
    return None, nullcontext()


def _has_all_tokens(base: Subject, rows: UnrelatedRows) -> bool:
    """Return whether the model before fine-tuning has an embedding for every token; a chat format may add tokens."""
    most = max(max(row.input_ids) for kind in vars(rows).values() for row in kind)
    return most < base.model.get_input_embeddings().num_embeddings  # type: ignore[operator]


def _loss(subject: Subject, name: str, rows: Sequence[Row]) -> LossSummary:
    return summary(score(subject, rows, what=f"{name} loss"))


def _change(losses: LossSummary, before: float | None) -> LossChange:
    change = None if before is None else losses.loss - before
    return LossChange(losses.loss, before, change, losses.records, losses.tokens)
