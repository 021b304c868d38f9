"""BatchReader: builds the batches that noise is drawn on, from a loss's inputs or from the model's calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.anatomy import base_model, task_of
from neft_zoo.passes.special_tokens import special_token_ids


class BatchReader:
    """Builds batches with the tokenizer's special tokens and the placeholders in the model's config.

    Args:
        model: a transformers or PEFT model, unwrapped.
        tokenizer: tokenizer or processor; None for no special tokens.

    Attributes:
        tokens: the special tokens and the label shift, as arguments of `Batch.from_inputs`.
    """

    def __init__(self, model: nn.Module, tokenizer: object = None) -> None:
        self.tokens = special_token_ids(tokenizer, getattr(base_model(model), "config", None))
        task = task_of(model)
        self.tokens["shifted"] = task == "next token"
        self._has_token_labels = task not in ("sequence", "span")
        self._key, self._progress = 0, 0.0
        self._labels: Tensor | None = None

    def __call__(self, inputs: Mapping[str, Any], key: int, progress: float = 0.0) -> Batch:
        """Return the batch of a model's keyword arguments.

        Args:
            inputs: the arguments.
            key: random key of the optimizer step; equal keys draw equal noise.
            progress: fraction of training done, in [0, 1].
        """
        if not self._has_token_labels:  # several per sequence may have the shape of token ids
            inputs = {**inputs, "labels": None}
        return Batch.from_inputs(inputs, key=key, progress=progress, **self.tokens)

    def enter_step(self, key: int, progress: float, labels: Tensor | None = None) -> None:
        """Start an optimizer step, to which the following calls belong.

        Args:
            key: random key of the step.
            progress: fraction of training done, in [0, 1].
            labels: the labels of the loss, for calls on the same tokens without labels.
        """
        self._key, self._progress, self._labels = key, progress, labels

    def of_call(self, call: Mapping[str, Any]) -> Batch:
        """Return the batch of a model call in the current step, given the call's arguments by name."""
        ids, labels = call.get("input_ids"), self._labels
        if call.get("labels") is None and labels is not None and ids is not None and labels.shape == ids.shape:
            call = {**call, "labels": labels}
        return self(call, self._key, self._progress)


def must_be_read(inputs: object, edited_by: str | None = None) -> bool:
    """Return whether a loss's batch must be read from the model's own calls: it has no token ids or no labels.

    Args:
        inputs: arguments of the loss.
        edited_by: name of a strategy that edits token ids, which must then be there; None for others.

    Raises:
        NoiseError: if there are no token ids to edit.
    """
    names = inputs if isinstance(inputs, Mapping) else {}
    ids, labels = names.get("input_ids"), names.get("labels")
    in_rows = isinstance(ids, Tensor) and ids.dim() <= 2  # of several choices the model makes rows
    if edited_by is None:
        return not (in_rows and isinstance(labels, Tensor))
    if not in_rows:
        got = list(ids.shape) if isinstance(ids, Tensor) else sorted(names) or type(inputs).__name__
        raise NoiseError(f"{edited_by} edits token ids, so a batch must have input_ids of shape (B, L), got {got}.")
    return False
