"""Names of options: those that are accepted, and suggestions for others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from neft_zoo.errors import NoiseError, did_you_mean, shown

# Names in other fine-tuning programs (Axolotl, LLaMA-Factory, torchtune, older versions of transformers).
ALIASES = {
    "base_model": "model_name_or_path",
    "model": "model_name_or_path",
    "model_name": "model_name_or_path",
    "torch_dtype": "dtype",
    "dataset": "dataset_name",
    "dataset_path": "dataset_name",
    "lr": "learning_rate",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "accumulation_steps": "gradient_accumulation_steps",
    "grad_accum": "gradient_accumulation_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "sequence_len": "max_length",
    "cutoff_len": "max_length",
    "sample_packing": "packing",
    "evaluation_strategy": "eval_strategy",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "output": "output_dir",
    "neftune_alpha": "neftune_noise_alpha",
}


def nearest(name: str, accepted: Collection[str], dashes: str = "") -> str:
    """Return the end of a sentence about an unknown option: the suggested one, or a full stop."""
    alias = ALIASES.get(name)
    return f"; did you mean {dashes}{alias}?" if alias in accepted else did_you_mean(name, accepted, dashes)


def check_keys(names: Iterable[str], accepted: Collection[str], origin: Mapping[str, str]) -> None:
    """Raise for the first option of a recipe that is not accepted.

    Args:
        names: of the recipe's options.
        accepted: all valid names; empty if they are unknown.
        origin: file and line of each option.

    Raises:
        NoiseError: if an option is not accepted.
    """
    for name in names:
        if accepted and name not in accepted:
            where = origin.get(name, "the recipe")
            raise NoiseError(f"{where}: unknown option {shown(name)}{nearest(name, accepted)}")


def check_flags(argv: Iterable[str], accepted: Collection[str], in_recipe: Collection[str] = ()) -> None:
    """Raise for the first flag of a command line that is not accepted, after `--noise` and its arguments are removed.

    Args:
        argv: the command line, with underscores in the names of flags.
        accepted: all valid names, without dashes; empty if they are unknown.
        in_recipe: options that belong in the recipe, and are not flags of the command.

    Raises:
        NoiseError: if a flag is not accepted.
    """
    for argument in argv:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and accepted and name not in accepted:
            option = ALIASES.get(name, name)
            theirs = option in in_recipe and not did_you_mean(name, accepted, cutoff=0.8).endswith("?")
            hint = f": {option} is an option of the recipe." if theirs else nearest(name, accepted, "--")
            raise NoiseError(f"unknown option {shown('--' + name)}{hint}")
