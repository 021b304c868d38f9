"""Loading a model, its tokenizer and the records of both splits from a folder and a recipe."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import get_quantization_config

from neft_zoo.config import recipe
from neft_zoo.config.data import read_checked
from neft_zoo.config.options import RunOptions, read_options
from neft_zoo.config.trainer_arguments import init_kwargs
from neft_zoo.errors import NoiseError, one_line
from neft_zoo.evaluation.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class BestCheckpoint:
    """The checkpoint of a run with the lowest logged held-out loss.

    Attributes:
        folder: of the checkpoint.
        step: optimizer step.
        logged_loss: held-out loss in the trainer's log.
    """

    folder: Path
    step: int
    logged_loss: float


def read_recipe(model: str, config: str) -> RunOptions:
    """Return a recipe's options for another model than the one it starts from.

    Raises:
        NoiseError: if the model's folder or something in the recipe is invalid.
    """
    folder = Path(model).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise NoiseError(f"model must be a folder with config.json or adapter_config.json, got {model!r}.")
    if not folder.is_dir() and (folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1):
        raise NoiseError(f"model must be an existing folder or a name on the hub, got {model!r}.")
    loaded = recipe.load(config)
    # The default would be to show no progress, since the commands make transformers say little.
    values = {"disable_tqdm": False, **loaded.values}
    return read_options(
        recipe.over(values, {"model_name_or_path": str(folder) if folder.is_dir() else model}), loaded.origin
    )


def load_model(name: str, options: RunOptions) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a model, or an adapter on its base model, and its tokenizer.

    Raises:
        NoiseError: if it cannot be loaded.
    """
    training, model = options.training, options.model
    settings = {**init_kwargs(training, model), "quantization_config": get_quantization_config(model)}
    settings = {key: value for key, value in settings.items() if value is not None}
    try:
        if (Path(name) / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            loaded = AutoPeftModelForCausalLM.from_pretrained(name, **settings)
        else:
            loaded = AutoModelForCausalLM.from_pretrained(name, **settings)
        return loaded, AutoTokenizer.from_pretrained(name, trust_remote_code=training.trust_remote_code)
    except Exception as error:  # remote code and weight readers raise all kinds of errors
        raise NoiseError(f"model {name!r} cannot be loaded: {one_line(error)}.") from None


def loader(
    model: PreTrainedModel | str | Path | None, config: str, options: RunOptions | None
) -> Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase | None]] | None:
    """Return a function that loads a model late, to save memory; None if there is no model to load.

    A model that is given itself comes without a tokenizer.

    Args:
        model: the model itself, its folder or its name; None for the model that the recipe starts from.
        config: the recipe.
        options: the recipe's options, used to load the model; None without a recipe.

    Raises:
        NoiseError: if a folder or a name is given without a recipe.
    """
    if model is not None and not isinstance(model, str | Path):
        return lambda: (model, None)
    if options is None:
        if model is not None:
            raise NoiseError(f"before must be a model, as the model is one, got {str(model)!r}.")
        return None
    name = str(model or recipe.load(config).values["model_name_or_path"])
    return lambda: load_model(str(Path(name).expanduser()), options)


def load_splits(
    options: RunOptions, limit: int | None, wanted: Sequence[str] = ("train", "test")
) -> dict[str, list[Record]]:
    """Return the first records of the recipe's training and test splits, as `train` and `test`.

    Raises:
        NoiseError: if a split is missing or a file cannot be read.
    """
    script = options.script
    names = {"train": script.dataset_train_split, "test": script.dataset_test_split}
    names = {name: names[name] for name in wanted}
    data = read_checked(script, options.training, options.mixture, list(names.values()))
    return {name: list(itertools.islice(data[split], limit)) for name, split in names.items()}


def best_checkpoint(folder: Path) -> BestCheckpoint | None:
    """Return a run's checkpoint with the lowest held-out loss; None unless the run kept several and logged it."""
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: _step(path.parent))
    if len(states) < 2:
        return None
    log = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    losses = {line["step"]: line["eval_loss"] for line in log if math.isfinite(line.get("eval_loss", math.nan))}
    candidates = [(losses[_step(path.parent)], path.parent) for path in states if _step(path.parent) in losses]
    if not candidates:
        return None
    loss, checkpoint = min(candidates, key=lambda candidate: candidate[0])  # of equal ones the earliest
    return BestCheckpoint(checkpoint, _step(checkpoint), loss)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1
