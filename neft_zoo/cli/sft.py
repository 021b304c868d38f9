"""`neft-zoo sft`: TRL's fine-tuning command, with `noise`."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from neft_zoo.cli import launch
from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.cli.trl_options import help_page, read_command_line
from neft_zoo.console import say
from neft_zoo.errors import DataWarning, NoiseError, as_sentence
from neft_zoo.files import check_folder, locked

if TYPE_CHECKING:
    from neft_zoo.config.options import RunOptions

WRITTEN = ("model*.safetensors", "adapter_model.safetensors", "checkpoint-*")  # files of a finished or interrupted run
KNOWN_WARNINGS = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT and TRL use transformers' older name
    "`label_smoothing_factor` is deprecated in",  # TRL 2 will need another option
)
SUMMARY = "fine-tune with TRL: a recipe, any TRL option, and --noise"
EXAMPLE = """
neft-zoo sft quickstart --noise symnoise --noise.alpha 10
neft-zoo sft engines/fsdp2 --accelerate_config fsdp2 --num_processes 8
neft-zoo sft base --model_name_or_path MODEL --dataset_name DATA
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    add_command(commands, "sft", run, SUMMARY, EXAMPLE, passes_on=True)


def run(options: argparse.Namespace) -> int:
    """Fine-tune with the given options and save the model, in several processes if requested."""
    if options.help:
        print(help_page("sft", SUMMARY, EXAMPLE, launch.add_own))
        return 0
    engine, flags = launch.split(options.flags)
    if engine:
        return launch.start(engine, flags)
    train(*read_command_line(flags, "sft", launch.names()))
    return 0


@contextmanager
def _without_known_warnings() -> Iterator[None]:
    """Suppress library warnings that shipped recipes cause and users cannot avoid."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        yield


@_without_known_warnings()
def train(values: dict[str, object], origin: dict[str, str]) -> None:
    """Fine-tune with the options of a recipe."""
    from neft_zoo.config.options import read_options
    from neft_zoo.config.trainer_arguments import trainer_arguments
    from neft_zoo.training.trainers import SFTTrainer

    run = read_options(values, origin)
    output = Path(str(run.training.output_dir))
    check_folder("output_dir", output)
    with locked("output_dir", output):
        _check_earlier_run(output, run)
        say("loading data and model")
        with as_sentence("the recipe must run with TRL"):
            given = trainer_arguments(run)
            warnings.filterwarnings("ignore", ".*; not used: ", DataWarning)  # shown when the data was read
            trainer = SFTTrainer(**given)
        try:
            trainer.train(resume_from_checkpoint=run.training.resume_from_checkpoint)
            trainer.save_model(run.training.output_dir)
        except OSError as error:  # a full disk, at a checkpoint or at the end
            if error.errno is None:
                raise
            raise NoiseError(
                f"output_dir must be a folder that can be written to, got {output}: {error.strerror}."
            ) from None
        trainer.accelerator.print(f"Model and noise.json saved to {output}")
        if run.training.push_to_hub:
            trainer.push_to_hub(dataset_name=run.script.dataset_name)
        trainer.accelerator.end_training()


def _check_earlier_run(output: Path, run: RunOptions) -> None:
    """Raise if the folder has a run with another noise, and report if a run with the same noise is overwritten.

    Raises:
        NoiseError: before anything is loaded.
    """
    from neft_zoo.registry.entries import make
    from neft_zoo.training.provenance import check_run

    training = run.training
    noise = make("none" if training.noise is None else training.noise)
    check_run(output, training.resume_from_checkpoint, noise)
    if not training.resume_from_checkpoint and any(glob for name in WRITTEN for glob in output.glob(name)):
        say(f"{output} holds a run, which is written over; --resume_from_checkpoint true would go on with it")
