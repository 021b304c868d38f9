"""The arguments of a trainer and its model, from a run's options."""

from __future__ import annotations

from typing import Any

from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from neft_zoo.config.data import read_splits
from neft_zoo.config.options import RunOptions
from neft_zoo.training.data_conversion import as_prompts
from neft_zoo.training.sft_config import NoiseSFTConfig


def trainer_arguments(options: RunOptions) -> dict[str, Any]:
    """Return the arguments of the trainer, with the data loaded.

    Raises:
        NoiseError: if a required split is missing.
    """
    script, training, model = options.script, options.training, options.model
    training.model_init_kwargs = init_kwargs(training, model)
    data = read_splits(script, training, options.mixture)
    return dict(
        model=str(model.model_name_or_path),
        args=training,
        train_dataset=as_prompts(data[script.dataset_train_split]),
        eval_dataset=as_prompts(data[script.dataset_test_split]) if training.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )


def init_kwargs(training: NoiseSFTConfig, model: ModelConfig) -> dict[str, Any]:
    """Return the arguments for loading the model."""
    return {
        "revision": model.model_revision,
        "trust_remote_code": training.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs if isinstance(training.model_init_kwargs, dict) else {}),
    }
