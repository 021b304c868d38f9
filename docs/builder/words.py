"""Readable names of experiments, rows and settings, instead of folders, recipes or option names."""

from __future__ import annotations

from collections.abc import Sequence

from neft_zoo.compare.experiment import COMPUTE, STEPS, Experiment, Row
from neft_zoo.compare.samples import answers, records_in_words
from neft_zoo.config.recipe import PLACEHOLDER

SHIPPED = "2.6 M model"
MODELS = {f"{PLACEHOLDER}/quickstart/model": SHIPPED, "./build/smollm2": "SmolLM2-135M"}
SIZES = {SHIPPED: "the shipped model of 2.6 M parameters", "SmolLM2-135M": "SmolLM2-135M-Instruct, 135 M parameters"}
DATA = {"dolly": "Dolly", "smollm2": "Dolly", "gsm8k": "GSM8K"}
SWITCHES = {" match_rms": ", energy of uniform noise"}


def title(experiment: Experiment) -> str:
    """Return the title of an experiment: its setting, and the model in brackets."""
    name = model(experiment)
    return f"{regime(experiment)} ({name})" if name else regime(experiment)


def regime(experiment: Experiment) -> str:
    """Return data, layout, adapter and budget of an experiment."""
    config = experiment.config
    parts = [DATA.get(str(config.get("dataset_name")).rpartition("/")[2], experiment.name)]
    parts += ["packed"] if config.get("packing") else []
    parts += ["QLoRA" if config.get("load_in_4bit") else "LoRA"] if config.get("use_peft") else []
    if config.get("eval_strategy") == "steps":
        parts.append(f"measured every {config.get('eval_steps')} steps")
    parts += ["equal compute"] if experiment.budget == COMPUTE else []
    return ", ".join(parts)


def model(experiment: Experiment) -> str:
    """Return the model's short name, or "" if the results do not have it."""
    name = experiment.config.get("model_name_or_path")
    return MODELS.get(str(name), str(name).rpartition("/")[2]) if name else ""


def is_real(experiment: Experiment) -> bool:
    """Return whether the model is not the shipped one."""
    return model(experiment) not in ("", SHIPPED)


def setting(experiment: Experiment, rows: Sequence[Row] | None = None) -> str:
    """Return model size, records, epochs, answers and seeds in a line.

    Args:
        experiment: the experiment.
        rows: the shown rows, whose seeds are counted; None for all.
    """
    config, name = experiment.config, model(experiment)
    parts = [SIZES.get(name, name)] if name else []
    parts += [f"{config['train_records']} training records per seed"] if config.get("train_records") else []
    epochs = config.get("num_train_epochs")
    parts += [f"{epochs} epoch{'s' * (epochs != 1)}"] if epochs else []
    shown = experiment.rows if rows is None else rows
    samples = filter(None, [records_in_words(experiment), answers(experiment, shown)])
    return ", ".join([*parts, *samples, seeds(shown)])


def about(experiment: Experiment) -> str:
    """Return the setting of an experiment, and what makes its comparison unfair, without the last full stop."""
    return ". ".join([setting(experiment), *(note.removesuffix(".") for note in experiment.notes)])


def settings(experiments: Sequence[Experiment]) -> str:
    """Return a list of the experiments' settings."""
    return "\n".join(f"* {title(each)}: {setting(each)}." for each in experiments)


def same_data(experiments: Sequence[Experiment]) -> str:
    """Return a sentence on experiments that share their data and so are not independent evidence."""
    by_data: dict[object, list[str]] = {}
    for experiment in (each for each in experiments if each.budget == STEPS):
        by_data.setdefault(experiment.config.get("dataset_name"), []).append(title(experiment))
    shared = [titles for data, titles in by_data.items() if data and len(titles) > 1]
    return " ".join(
        f"One data set in {len(titles)} settings, not {len(titles)} data sets: {'; '.join(titles)}."
        for titles in shared
    )


def seeds(rows: Sequence[Row]) -> str:
    """Return the number of seeds of some rows."""
    counts = sorted({len(row.records) for row in rows if row.records} or {0})
    few = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{few} seed{'s' * (few != '1')}"


def row_name(row: Row) -> str:
    """Return the name of a row."""
    name = row.label
    for switch, words in SWITCHES.items():
        name = name.replace(switch, words)
    return name
