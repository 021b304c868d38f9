"""`neft-zoo generate`: answer prompts in AlpacaEval's format."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.console import quiet, say
from neft_zoo.errors import NoiseError
from neft_zoo.files import check_output, locked

EXAMPLE = """
neft-zoo generate runs/quickstart --config quickstart --limit 64
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = "answer prompts in batches, as AlpacaEval's model_outputs.json"
    command = add_command(commands, "generate", run, summary, EXAMPLE)
    command.add_argument("model", metavar="MODEL", help="folder of a model, run or adapter, or a hub name")
    command.add_argument("--config", required=True, metavar="RECIPE", help="how prompts are tokenized")
    group = command.add_argument_group("Prompts and output")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="AlpacaEval file or JSON lines (the test split)")
    group.add_argument("--limit", type=int, metavar="INT", help="number of prompts, from the start (all)")
    group.add_argument("--output", type=Path, metavar="FILE", help="default: MODEL/model_outputs.json")
    group.add_argument("--generator", default="", metavar="NAME", help="the model's name in the file (its folder's)")
    group = command.add_argument_group("Generation")
    group.add_argument("--batch_size", type=int, default=16, metavar="INT", help="prompts a batch (%(default)s)")
    group.add_argument("--max_new_tokens", type=int, default=1024, metavar="INT", help="longest answer (%(default)s)")
    group.add_argument(
        "--repetition_penalty", type=float, default=1.2, metavar="FLOAT", help="1 is none (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Write a model's outputs and print their path."""
    folder = Path(options.model).expanduser()
    if options.output is None and not folder.is_dir():
        raise NoiseError(f"model must be an existing folder, or --output be given, got {options.model!r}.")
    output = options.output or folder / "model_outputs.json"
    check_output("output", output)
    from neft_zoo.judging.generating import Settings, write_outputs

    settings = Settings(options.batch_size, options.max_new_tokens, options.repetition_penalty, options.limit)
    with locked("output", output.parent, f".{output.name}.lock"), quiet():
        say("loading data and model")
        print(write_outputs(options.model, options.config, output, options.prompts, options.generator, settings))
