"""transformers' own trainer with `noise=`; it does not need TRL."""

from __future__ import annotations

import transformers

from neft_zoo.training.mixin import NoiseMixin


class Trainer(NoiseMixin, transformers.Trainer):
    """transformers' `Trainer` with `noise=`."""
