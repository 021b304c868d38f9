"""Forgetting: loss on unrelated text and answers, compared with the model before fine-tuning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from neft_zoo.errors import DataWarning, NoiseError
from neft_zoo.evaluation.effect_results import Forgetting, LossChange
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.records import exchange, shaped_like, text_tokens
from neft_zoo.evaluation.results import LossSummary
from neft_zoo.evaluation.shipped import shipped_records
from neft_zoo.evaluation.subject import Row, Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class UnrelatedRows:
    """Tokenized records of both kinds: textbook passages and GSM8K problems."""

    general: Sequence[Row]
    gsm8k: Sequence[Row]


def unrelated_rows(subject: Subject, records: int | None) -> UnrelatedRows:
    """Return the shipped unrelated records, tokenized by a subject's trainer.

    No end token is appended to passages, since its loss would measure how well the model ends an answer. GSM8K
    problems take the format of the training records, and only their answers are graded.

    Args:
        subject: the model and its data preparation.
        records: number of records of each kind; None for all.
    """
    longest = subject.settings.max_length
    texts = [record["text"] for record in shipped_records("general", records)]
    passages = [text_tokens(subject.tokenizer, text)[:longest] for text in texts]
    example = subject.rows["train"][0].record
    problems = [
        shaped_like(example, record["prompt"][0]["content"], record["completion"][0]["content"])
        for record in shipped_records("gsm8k", records)
    ]
    general = [Row(ids, ids, {"text": text}) for ids, text in zip(passages, texts, strict=True)]
    return UnrelatedRows(general, subject.tokenized("gsm8k", problems))


def check_same_ids(subject: Subject, rows: UnrelatedRows, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise unless a tokenizer gives the unrelated texts the token ids that a subject's gives them.

    Args:
        subject: the model after fine-tuning.
        rows: the unrelated records.
        tokenizer: of the model before fine-tuning, which reads the same rows.

    Raises:
        NoiseError: with the first text whose ids differ.
    """
    texts = [row.record["text"] for row in rows.general]
    texts += [answered[1] for row in rows.gsm8k if (answered := exchange(row.record)) is not None]
    for text in texts:
        ours, theirs = (each(text, add_special_tokens=False)["input_ids"] for each in (subject.tokenizer, tokenizer))
        if ours != theirs:
            raise NoiseError(
                "before must be a model with the tokenizer of the one that is measured, got one with other token ids "
                f"for {text[:40]!r}: losses per token of different tokens cannot be compared."
            )


def forgetting(subject: Subject, rows: UnrelatedRows, before: PreTrainedModel | None = None) -> Forgetting:
    """Return the losses on unrelated records, compared with the model before fine-tuning.

    Args:
        subject: the model after fine-tuning.
        rows: tokenized records.
        before: the model before fine-tuning; None uses the base model of an adapter, and skips the comparison
            otherwise.

    Raises:
        NoiseError: if an adapter that is to be switched off is merged into its base model.
    """
    base, context = _base(subject, before)
    after = {name: _loss(subject, name, kind) for name, kind in vars(rows).items()}
    if base is None or _lacks_tokens(base, rows):
        return Forgetting(**{name: _change(losses, None) for name, losses in after.items()})
    with context:
        earlier = {name: _loss(base, f"{name}, before", kind).loss for name, kind in vars(rows).items()}
    return Forgetting(**{name: _change(losses, earlier[name]) for name, losses in after.items()})


def _base(subject: Subject, before: PreTrainedModel | None) -> tuple[Subject | None, AbstractContextManager[None]]:
    if before is not None:
        return subject.with_model(before), nullcontext()
    if isinstance(subject.model, PeftModel):
        if any(isinstance(module, BaseTunerLayer) and module.merged for module in subject.model.modules()):
            # PEFT would subtract it, and leave it so, with weights that are rounded.
            raise NoiseError(
                "forgetting must have an adapter that is not merged into its base model, or the model before "
                "fine-tuning (before=), got a merged one: call unmerge_adapter()."
            )
        return subject, subject.model.disable_adapter()
    return None, nullcontext()


def _lacks_tokens(base: Subject, rows: UnrelatedRows) -> bool:
    """Return whether the model before fine-tuning lacks an embedding for a token; a chat format may add tokens."""
    most = max(max(row.input_ids) for kind in vars(rows).values() for row in kind)
    size: int = base.model.get_input_embeddings().num_embeddings  # type: ignore[assignment]
    if most >= size:
        warnings.warn(
            f"forgetting has no comparison with the model before fine-tuning: it embeds {size} tokens, and the "
            f"records have token {most}.",
            DataWarning,
            stacklevel=3,
        )
    return most >= size


def _loss(subject: Subject, name: str, rows: Sequence[Row]) -> LossSummary:
    return summary(score(subject, rows, what=f"{name} loss"))


def _change(losses: LossSummary, before: float | None) -> LossChange:
    change = None if before is None else losses.loss - before
    return LossChange(losses.loss, before, change, losses.records, losses.tokens)
