"""Options that a measurement switches off in any recipe, with the values that switch them off."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

Config = TypeVar("Config")

# Save, send and resume nothing.
OUTPUT: Mapping[str, object] = {
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "report_to": [],
    "resume_from_checkpoint": None,
}
PROGRESS: Mapping[str, object] = {"disable_tqdm": True}
EVALUATION: Mapping[str, object] = {"eval_strategy": "no"}
NOISE: Mapping[str, object] = {"noise": None, "neftune_noise_alpha": None}
# One record per row, in the order of the data.
LAYOUT: Mapping[str, object] = {
    "packing": False,
    "eval_packing": False,
    "padding_free": False,
    "shuffle_dataset": False,
}
# transformers has two names for the first; older versions lack the newer one.
RECOMPUTATION: Mapping[str, object] = {
    "gradient_checkpointing": False,
    "activation_checkpointing": False,
    "activation_offloading": False,
}
COMPILATION: Mapping[str, object] = {"torch_compile": False, "use_liger_kernel": False}
WORKERS: Mapping[str, object] = {"dataset_num_proc": None, "dataloader_num_workers": 0}


def replaced(config: Config, *groups: Mapping[str, object]) -> Config:
    """Return a copy of a trainer's config with the options of all groups replaced.

    `dataclasses.replace` would run the config's `__post_init__` again, which sets up devices and engines.
    """
    changed = copy.copy(config)
    for group in groups:
        for name, value in group.items():
            setattr(changed, name, value)
    return changed
