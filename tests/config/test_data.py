"""Reading a recipe's data: splits, held-out shares, and what is said of data that cannot be used."""

import json
import warnings
from pathlib import Path

import pytest

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.cli.trl_options import read_command_line
from neft_zoo.compare.grid import make_grid
from neft_zoo.config.data import read_splits
from neft_zoo.config.options import load_options, read_options
from neft_zoo.training.ranges import RANGES

QUIET = {"output_dir": "out", "eval_strategy": "epoch"}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Return a function that writes records into a file in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(records, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        return name

    return write


def splits(**options):
    run = load_options("quickstart", **{**QUIET, **options})
    return read_splits(run.script, run.training, run.mixture)


def test_a_share_is_held_out_the_same_in_every_run(rows):
    file = rows([{"text": f"record {i}"} for i in range(40)])
    with pytest.raises(NoiseError, match="must have a split 'test', got train: test_share: 0.05 holds out a share"):
        splits(dataset_name=file)
    first = splits(dataset_name=file, test_share=0.05, seed=1)
    again = splits(dataset_name=file, test_share="5e-2", seed=2)
    assert len(first["test"]) == 2 and len(first["train"]) == 38
    assert first["test"]["text"][:] == again["test"]["text"][:]
    assert not {*first["test"]["text"]} & {*first["train"]["text"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(test_share=0.001), "must leave a record for each split, got 0.001 of 40 records"),
        (dict(test_share=1.5), "test_share must be a number > 0 and < 1, got 1.5"),
        (dict(test_share=0.1, dataset_streaming=True), "needs a dataset that is in memory"),
        (dict(test_share=0.1, dataset_test_split="train"), "no 'train'"),
        (dict(dataset_name="gone.jsonl"), "dataset_name must be an existing path"),
        (dict(dataset_name="empty.jsonl", eval_strategy="no"), "must be readable and its files not empty"),
        (dict(dataset_name="torn.jsonl", eval_strategy="no"), "must be readable and its files not empty"),
    ],
)
def test_data_that_cannot_be_used_is_one_sentence(rows, options, message):
    file = rows([{"text": f"record {i}"} for i in range(40)])
    rows([], "empty.jsonl")
    with open("torn.jsonl", "w") as torn:
        torn.write('{"text": "a')
    with pytest.raises(NoiseError, match=message) as caught:
        splits(**{"dataset_name": file, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf")])
def test_a_number_that_cannot_be_meant_is_refused(name, value):
    with pytest.raises(NoiseError, match=f"{name} must be|the options do not fit"):
        load_options("base", model_name_or_path="a/b", dataset_name="a/b", noise="none", **{name: value})


def test_stock_noise_without_a_strategy_is_run_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = dict(model_name_or_path="a/b", dataset_name="a/b", noise=None, output_dir="out")
    with pytest.warns(UserWarning, match="neftune_noise_alpha: 5 is run as noise: {name: neft_uniform, alpha: 5}"):
        run = load_options("base", neftune_noise_alpha=5, **options)
    assert run.training.noise == {"name": "neft_uniform", "alpha": 5} and run.training.neftune_noise_alpha is None
    Path("stock.yaml").write_text("extends: base\nnoise: null\nneftune_noise_alpha: 5\n")
    with pytest.warns(UserWarning, match="is run as noise"):
        grid = make_grid("stock.yaml")
    assert [row.noise["name"] for row in grid.rows] == ["none", "neft_uniform"] and grid.rows[1].noise["alpha"] == 5
    assert "neftune_noise_alpha" not in grid.config
    with pytest.raises(NoiseError, match="neftune_noise_alpha must be a finite number > 0, got -1"):
        load_options("base", neftune_noise_alpha=-1, **options)
    with pytest.raises(NoiseError, match="must be unset when noise is given"):
        load_options("base", neftune_noise_alpha=5, **{**options, "noise": "symnoise"})


LAYERS = {
    "a recipe over base's none": ("neftune_noise_alpha: 5", {}, 5.0),
    "an option over a recipe's noise": ("noise: symnoise", dict(neftune_noise_alpha=7), 7.0),
    "a recipe's null over base's none": ("neftune_noise_alpha: null", {}, "none"),
    "noise over a recipe's alpha": ("neftune_noise_alpha: 5", dict(noise="symnoise"), "symnoise"),
    "no noise over a recipe's alpha": ("neftune_noise_alpha: 5", dict(noise=None), None),
}


@pytest.mark.filterwarnings("ignore:neftune_noise_alpha")
@pytest.mark.parametrize(("text", "overrides", "noise"), LAYERS.values(), ids=LAYERS)
def test_the_nearer_of_two_kinds_of_noise_counts(text, overrides, noise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(f"extends: base\n{text}\n")
    found = load_options("r.yaml", output_dir="out", **overrides).training
    wanted = {"name": "neft_uniform", "alpha": noise} if isinstance(noise, float) else noise
    assert found.noise == wanted and found.neftune_noise_alpha is None
    if overrides.get("noise", 1) is None:
        return
    flags = [f"--{name}={value}" for name, value in overrides.items()]
    values = read_command_line(["r.yaml", "--output_dir", "out", *flags], "sft")[0]
    assert read_options(values).training.noise == wanted


SFT = "sft quickstart --output_dir out --max_steps 1 --eval_strategy no --save_strategy no --report_to none".split()


def test_records_lost_to_max_length_are_counted(rows, capsys):
    short = {"prompt": "a", "completion": " b"}
    file = rows([short] * 2 + [{"prompt": "a b c d e f " * 20, "completion": " g"}] * 3)
    with pytest.warns(UserWarning, match="3 of 5 records have no graded token within max_length 32: they are dropped"):
        assert main([*SFT, "--dataset_name", file, "--max_length", "32"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = rows([{"prompt": "a b c d e f " * 20, "completion": " g"}] * 3, "lost.jsonl")
        assert main([*SFT, "--dataset_name", file, "--max_length", "32", "--output_dir", "lost"]) == 2
    error = capsys.readouterr().err
    assert "max_length must leave a graded token in a record, got 32: all 3 lose theirs" in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dataset_name", "qa.jsonl"], "qa.jsonl split train must have the columns text, or"),
        (["--chat_template_path", "gone.jinja", "--dataset_name", "chat.jsonl"], "the recipe must run with TRL"),
        (["--model_name_or_path", "./broken"], "the recipe must run with TRL"),
        (["--output_dir", "qa.jsonl"], "output_dir must be a folder"),
    ],
)
def test_what_building_the_trainer_raises_is_one_sentence(rows, capsys, tmp_path, argv, message):
    rows([{"question": "a", "answer": "b"}], "qa.jsonl")
    rows([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}], "chat.jsonl")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert main([*SFT, *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.splitlines()[-1].startswith("neft-zoo: error: ")
