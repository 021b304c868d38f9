"""ModelOutputs: the logits that are kept of a pass, and how the model and its loss use them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import IGNORED, Batch
from neft_zoo.passes.anatomy import base_model, find_head, task_of
from neft_zoo.passes.label_positions import loss_shifts
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.records import Pass

# At most this many logits are kept for comparison (16 MiB); beyond it, hidden states are kept and projected in chunks.
KEPT_LOGITS = 2**22


def logits_of(output: Any) -> Tensor | None:
    """Return the logits in a model's output, None without any.

    BERT's kind, with two heads for pretraining, calls those of tokens otherwise:
    https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/bert/modeling_bert.py
    """
    return getattr(output, "logits", getattr(output, "prediction_logits", None))


class ModelOutputs:
    """Keeps the logits of passes that will be compared, and learns in the first pass how the model computes them.

    Args:
        model: a transformers or PEFT model.

    Attributes:
        task: what the model predicts.
        shift: how many positions a label lies after its prediction.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.task = model, task_of(model)
        self.shift, self._shift_is_seen = int(self.task == "next token"), False
        self._are_of_head: bool | None = None

    def keep(self, output: Any, record: Pass, batch: Batch) -> None:
        """Store a model's output in the record of its pass.

        Args:
            output: the model's output.
            record: the record of the pass, which has the last hidden states.
            batch: the batch of the call.

        Raises:
            NoiseError: if logits and loss cannot be compared.
        """
        logits = logits_of(output)
        if self.task == "span":
            record.logits = torch.cat([output.start_logits, output.end_logits])
        elif self.task == "sequence":
            record.logits = logits
        elif logits is not None:
            rows, length = batch.input_ids.shape
            if logits.dim() != 3 or logits.shape[1] < length:  # some calls request the logits of few positions only
                return
            logits = logits[:, -length:]
            if self.task == "next token":
                self._see_shift(getattr(output, "loss", None), logits, record.hidden, batch.labels)
            few = self.task != "next token" or rows * length * logits.shape[-1] <= KEPT_LOGITS
            if few or not self._head_makes(logits, record.hidden):
                record.logits = logits

    def check_next_tokens(self, output: Any, hidden: Tensor, labels: Tensor) -> None:
        """Raise unless the LM head maps the last hidden states to the logits, and each predicts the next label.

        Args:
            output: the model's output, which may have no logits.
            hidden: the last hidden states (B, L, D).
            labels: of the model's call (B, L).

        Raises:
            NoiseError: if the logits or their loss show otherwise.
        """
        logits, length = logits_of(output), labels.shape[1]
        if logits is None or logits.dim() != 3 or logits.shape[1] < length:
            return
        logits = logits[:, -length:]
        self._see_shift(getattr(output, "loss", None), logits, hidden, labels)
        if not self.shift or not self._head_makes(logits, hidden):
            raise NoiseError(
                "losses of single tokens need logits that the LM head makes of the last hidden states, one before the "
                f"label, got others from {type(base_model(self.model)).__name__}."
            )

    def _see_shift(self, loss: Tensor | None, logits: Tensor, hidden: Tensor | None, labels: Tensor | None) -> None:
        """Find out from the first loss with labels how many positions a label lies after its prediction."""
        if self._shift_is_seen or loss is None or labels is None or not (labels != IGNORED).any():
            return
        shifts, self._shift_is_seen = loss_shifts(loss, logits, labels.to(logits.device)), True
        if shifts is None and not self._head_makes(logits, hidden):  # ProphetNet predicts several tokens per position
            raise NoiseError(
                "an objective that compares predictions needs logits that the LM head makes, or a loss that is "
                f"their cross-entropy, got neither from {type(base_model(self.model)).__name__}."
            )
        self.shift = int(shifts is not False)

    def _head_makes(self, logits: Tensor, hidden: Tensor | None) -> bool:
        """Return whether the LM head maps the last hidden states to the logits, checked at one position per row."""
        if self._are_of_head is None:
            self._are_of_head = (
                hidden is not None
                and find_head(self.model) is not None
                and LanguageHead(self.model).makes(logits[:, -1], hidden[:, -1])
            )
        return self._are_of_head
