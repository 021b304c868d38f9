"""From a recipe's mapping to the configs of a run."""

import pytest

from neft_zoo import NoiseError
from neft_zoo.cli.trl_options import read_command_line
from neft_zoo.config import measuring, recipe
from neft_zoo.config.options import NAMES, load_options, read_options

QUIET = {"output_dir": "out", "use_cpu": True}


def test_a_mapping_and_a_command_line_give_the_same_options():
    flags = "--learning_rate 3e-4 --packing --no_average_tokens_across_devices --report_to none --noise symnoise"
    argv = ["--config", "quickstart", "--output_dir", "out", *flags.split(), "--noise.alpha=7"]
    by_flags = read_options(*read_command_line(argv, "sft"))
    by_mapping = load_options(
        "quickstart",
        output_dir="out",
        learning_rate="3e-4",  # a text is converted as on the command line
        packing=True,
        average_tokens_across_devices=False,
        report_to="none",
        noise={"name": "symnoise", "alpha": 7},
    )
    assert by_flags.training.to_dict() == by_mapping.training.to_dict()
    for part in ("script", "model", "mixture"):
        assert getattr(by_flags, part) == getattr(by_mapping, part)
    assert by_mapping.training.learning_rate == 3e-4 and by_mapping.training.noise == {"name": "symnoise", "alpha": 7}


def test_the_mapping_is_left_as_it_was_and_reads_no_arguments_of_the_process(monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest", "--learning_rate", "7"])
    values = {**recipe.load("quickstart").values, **QUIET, "env": {"NEFT_ZOO_TRIED": 3}}
    before = dict(values)
    monkeypatch.setenv("NEFT_ZOO_TRIED", "")
    assert read_options(values).training.learning_rate == 1e-3
    import os

    assert values == before and os.environ["NEFT_ZOO_TRIED"] == "3"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lerning_rate", 3, "r.yaml line 9: unknown option 'lerning_rate'; did you mean learning_rate"),
        ("learning_rate", [1], r"r.yaml line 9: learning_rate must be a number, got \[1\]"),
        ("max_length", {"a": 1}, "r.yaml line 9: max_length must be a number"),
        ("learning_rate", True, "r.yaml line 9: learning_rate must be a number, got True"),
        ("weight_decay", None, "r.yaml line 9: weight_decay must be a number, got None"),
        ("learning_rate", "fast", "fast"),
        ("noise", 0, "got 0"),
    ],
)
def test_a_wrong_option_is_named_with_its_place(name, value, message):
    values = {**recipe.load("quickstart").values, **QUIET, name: value}
    with pytest.raises(NoiseError, match=message):
        read_options(values, {name: "r.yaml line 9"})


def test_what_a_measurement_switches_off_are_options():
    groups = [group for name, group in vars(measuring).items() if name.isupper()]
    known = NAMES | {"activation_checkpointing"}  # missing from older versions of transformers
    assert len(groups) > 5 and all(name in known for group in groups for name in group)
