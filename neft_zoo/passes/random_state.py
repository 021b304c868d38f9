"""RandomState: a saved copy of the random state of the CPU and of a model's device."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn


class RandomState:
    """The random state at construction time, which dropout masks, and a custom loss, are drawn from.

    Args:
        model: its device's state is saved.
    """

    def __init__(self, model: nn.Module) -> None:
        self._device = next(model.parameters()).device
        self._cpu, self._python, self._numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
        self._own = None if self._device.type in ("cpu", "meta") else self._module().get_rng_state(self._device)

    def restore(self) -> None:
        """Restore the saved state."""
        torch.set_rng_state(self._cpu)
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        if self._own is not None:
            self._module().set_rng_state(self._own, self._device)

    def _module(self):  # noqa: ANN202 - `torch.cuda` and the like
        return torch.get_device_module(self._device)
