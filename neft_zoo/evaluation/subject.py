"""Subject: a model and its records, tokenized as in training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from torch import Tensor

from neft_zoo.config.data import alpaca_record, as_messages_record, is_instruction
from neft_zoo.config.measuring import EVALUATION, LAYOUT, NOISE, OUTPUT, RECOMPUTATION, replaced
from neft_zoo.errors import NoiseError, as_sentence
from neft_zoo.evaluation.generation import end_tokens
from neft_zoo.evaluation.records import Record, exchange, prompt_tokens
from neft_zoo.noise.batch import IGNORED
from neft_zoo.training.trainers import SFTTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig

# One record per row and in order, even if the recipe packs, and nothing is written or logged.
CLEAN = {**LAYOUT, **RECOMPUTATION, **NOISE, **EVALUATION, **OUTPUT}


@dataclass(frozen=True, eq=False)
class Row:
    """One tokenized record.

    Attributes:
        input_ids: token ids, truncated as in training.
        labels: the same, -100 where the loss does not grade.
        record: the record that it was made from.
        index: number of the record in its split.
    """

    input_ids: list[int]
    labels: list[int]
    record: Record
    index: int = 0


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under evaluation and its tokenized records.

    Attributes:
        model: in eval mode, on its device.
        tokenizer: the model's.
        rows: tokenized records of each split.
        trainer: the trainer that prepared them, which also collates batches.
        batch_size: records per forward pass.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: Mapping[str, list[Row]]
    trainer: SFTTrainer
    batch_size: int

    @property
    def template(self) -> str | None:
        """The trainer's chat template, if it differs from the tokenizer's."""
        return self.trainer.chat_template

    @property
    def settings(self) -> SFTConfig:
        """The trainer's arguments."""
        return self.trainer.args  # type: ignore[return-value]

    @property
    def progress(self) -> bool:
        """Whether to show progress bars."""
        return not self.trainer.args.disable_tqdm

    def batches(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Yield row indices and model inputs by batch, grouping rows of similar length."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            examples = [{"input_ids": rows[i].input_ids, "labels": rows[i].labels} for i in indices]
            collated: Any = self.trainer.data_collator(examples)
            yield indices, {name: value.to(self.model.device) for name, value in collated.items()}

    def autocast(self) -> AbstractContextManager[None]:
        """Return the mixed-precision context that the trainer's own evaluation would use."""
        return self.trainer.accelerator.autocast()

    def with_model(self, model: PreTrainedModel) -> Subject:
        """Return the same records with another checkpoint of the model."""
        # A quantized model refuses `to`, even for its own device.
        moved = model if model.device == self.model.device else model.to(self.model.device)  # type: ignore[arg-type]
        return replace(self, model=moved.eval())

    def tokenized(self, name: str, records: Sequence[Record]) -> list[Row]:
        """Return further records, tokenized by the trainer; if they have an answer, only the answer is graded."""
        settings = replaced(self.settings, {"completion_only_loss": None, "assistant_only_loss": False})
        return prepare(self.model, self.tokenizer, settings, {name: records}).rows[name]

    def graded_reference(self, row: Row) -> Row | None:
        """Return a row with its whole reference graded, up to the end of the answer, independent of the loss.

        It is None if there is no reference, or one of fewer than 2 tokens. What follows the end, such as a line break
        of the template or a later turn, is not part of the answer.
        """
        if exchange(row.record) is None:
            return None
        prompt = prompt_tokens(self.tokenizer, row.record, self.template)
        # Some templates put other tokens before an answer in generation than in training: find where they diverge.
        pairs = zip(prompt, row.input_ids, strict=False)
        shorter = min(len(prompt), len(row.input_ids))
        begin = next((i for i, (one, other) in enumerate(pairs) if one != other), shorter)
        ends = end_tokens(self.model, self.tokenizer)
        end = next((i + 1 for i in range(begin, len(row.input_ids)) if row.input_ids[i] in ends), len(row.input_ids))
        if begin == 0 or end - begin < 2:
            return None
        after = [IGNORED] * (len(row.input_ids) - end)
        return replace(row, labels=[IGNORED] * begin + row.input_ids[begin:end] + after)


def prepare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: SFTConfig,
    splits: Mapping[str, Sequence[Record]],
) -> Subject:
    """Return a model and its records, tokenized by TRL's trainer with the model's training settings.

    Args:
        model: a transformers or PEFT model.
        tokenizer: the model's.
        args: the trainer's arguments; in a copy, packing, noise, output files and logging are switched off.
        splits: records of each split, in one of TRL's formats or as instructions; the first split determines the
            format.

    Raises:
        NoiseError: if a split is empty, or none of its records has a graded token.
    """
    for name, records in splits.items():
        if not records:
            raise NoiseError(f"split {name!r} must hold at least one record, got none.")
    converted = {name: [_converted(record) for record in records] for name, records in splits.items()}
    first, *others = [
        Dataset.from_list([{**record, "_record": i} for i, record in enumerate(records)])
        for records in converted.values()
    ]
    settings = replaced(args, CLEAN, {"model_init_kwargs": None})  # TRL warns about them if it is given a model
    names = list(converted)
    with tempfile.TemporaryDirectory() as folder:  # a trainer creates its output folder
        settings.output_dir = folder
        evaluated = dict(zip(names[1:], others, strict=True))
        with as_sentence("the records must be prepared by TRL"):
            trainer = SFTTrainer(
                model, args=settings, train_dataset=first, eval_dataset=evaluated or None, processing_class=tokenizer
            )
    tokenized: Any = {names[0]: trainer.train_dataset, **(trainer.eval_dataset if others else {})}  # type: ignore
    rows = {name: _rows(name, tokenized[name], converted[name]) for name in names}
    trained: Any = trainer.model  # with an adapter, if the arguments request one
    return Subject(trained.eval(), tokenizer, rows, trainer, settings.per_device_eval_batch_size)


def _converted(record: Record) -> Record:
    record = as_messages_record(record)
    return alpaca_record(dict(record)) if is_instruction(record) else record


def _rows(name: str, tokenized: Dataset, records: Sequence[Record]) -> list[Row]:
    dataset: Any = tokenized  # its rows are typed as lists too, which an integer index never returns
    indexed = [(row["_record"], row) for row in dataset]
    rows = [Row(list(row["input_ids"]), list(row["labels"]), records[index], index) for index, row in indexed]
    rows = [row for row in rows if any(label >= 0 for label in row.labels[1:])]
    if not rows:
        raise NoiseError(f"split {name!r} must have a record with a graded token within max_length, got none.")
    return rows
