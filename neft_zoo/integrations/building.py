"""Building other frameworks' trainers from their own config files, with noise, for `neft-zoo doctor`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import transformers
import yaml

from neft_zoo.errors import NoiseError, as_sentence
from neft_zoo.integrations import llamafactory
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.enable import enable

Noise = str | Mapping[str, object] | None
PLUGIN = "neft_zoo.integrations.axolotl.NoisePlugin"


def build(framework: str, options: dict[str, Any], noise: Noise, folder: Path) -> transformers.Trainer:
    """Return a framework's trainer, with noise and before training.

    Args:
        framework: the name of its module here.
        options: of its config file, without `noise`.
        noise: a strategy's name, or a mapping with `name` and arguments; None leaves the trainer unchanged.
        folder: an empty folder that replaces the file's `output_dir`.

    Raises:
        NoiseError: if the framework builds no trainer, or the noise is incompatible with it.
    """
    strategy = make("none" if noise is None else noise)
    options = {**options, "output_dir": str(folder / "output")}
    with as_sentence(f"{framework} must be able to make its trainer"):
        trainer = BUILDERS[framework](options, strategy, folder / "options.yaml")
    return trainer if noise is None else enable(trainer, strategy)


def _axolotl(options: dict[str, Any], strategy: Strategy, file: Path) -> transformers.Trainer:
    from axolotl.cli.config import load_cfg  # pyright: ignore[reportMissingImports]
    from axolotl.common import datasets  # pyright: ignore[reportMissingImports]
    from axolotl.train import setup_model_and_trainer  # pyright: ignore[reportMissingImports]

    options["plugins"] = [each for each in options.get("plugins") or [] if each != PLUGIN]
    file.write_text(yaml.safe_dump(options), encoding="utf-8")
    cfg = load_cfg(str(file))
    load = datasets.load_preference_datasets if cfg.rl else datasets.load_datasets
    return setup_model_and_trainer(cfg, load(cfg=cfg))[0]


class Built(Exception):  # noqa: N818
    """Carries a trainer out of one of LLaMA-Factory's workflows, which it ends."""


def _llamafactory(options: dict[str, Any], strategy: Strategy, file: Path) -> transformers.Trainer:
    from llamafactory.train.tuner import run_exp  # pyright: ignore[reportMissingImports]

    def end(trainer: transformers.Trainer) -> NoReturn:
        raise Built(trainer)

    stock = {"neftune_noise_alpha": None} if strategy.clean else {}  # stock noise is allowed alone
    llamafactory.check({**options, **stock}, strategy)
    try:
        with llamafactory.changed(options.get("stage", "sft"), end):
            run_exp(options)
    except Built as built:
        return built.args[0]
    raise NoiseError(f"{file} must be of a training, got one that makes no trainer.")


def _swift(options: dict[str, Any], strategy: Strategy, file: Path) -> transformers.Trainer:
    from swift.cli.main import parse_yaml_args  # pyright: ignore[reportMissingImports]
    from swift.pipelines.train import SwiftRLHF, SwiftSft  # pyright: ignore[reportMissingImports]

    file.write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML
    command = [str(file)]
    parse_yaml_args(command)  # in place
    pipeline = SwiftRLHF if "rlhf_type" in options else SwiftSft
    stopped = type(pipeline.__name__, (pipeline,), {"train": lambda self, trainer: trainer})
    return stopped(command).run()


BUILDERS = {"axolotl": _axolotl, "llamafactory": _llamafactory, "swift": _swift}
