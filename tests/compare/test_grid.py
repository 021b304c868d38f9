"""The grid of a comparison: its rows, and what is refused before the first run."""

from dataclasses import replace
from fractions import Fraction

import pytest

from neft_zoo.cli.main import main
from neft_zoo.compare import planning, results
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.compare.grid import make_grid
from neft_zoo.compare.measurement import Measurement
from neft_zoo.compare.planning import tasks
from neft_zoo.compare.rows import read_lengths
from neft_zoo.errors import NoiseError


def test_the_grid():
    made = make_grid("quickstart", ["neft_u*", "symnoise"], 2, ["neft_uniform.alpha=5,10", "symnoise.alpha=1"])
    assert [(row.name, row.noise.get("alpha")) for row in made.rows] == [
        ("none", None),
        ("neft_uniform", 5.0),
        ("neft_uniform", 10.0),
        ("symnoise", 1.0),
    ]
    assert [seed for _, seed in made.runs()] == [0] * 4 + [1] * 4
    assert [row.name for row in make_grid("quickstart").rows] == ["none", "neft_uniform"], "the recipe's own"
    assert len(make_grid("quickstart", ["none", "non*"]).rows) == 1
    control = make_grid("quickstart", ["none"], controls=["weight_decay"]).rows[1]
    assert control.overrides == {"weight_decay": 0.1} and control.name == "weight_decay"
    decays = make_grid("quickstart", ["none"], settings=["weight_*.weight_decay=0.01,0.1"], controls=["weight_decay"])
    assert [row.overrides for row in decays.rows[1:]] == [{"weight_decay": 0.01}, {"weight_decay": 0.1}]
    spelled = ["learning_rate.learning_rate=1e-4,0.0001,'1.0E-4',1e-2"]
    rates = make_grid("quickstart", ["none"], settings=spelled, controls=["learning_rate"])
    assert [row.overrides for row in rates.rows[1:]] == [{"learning_rate": 1e-4}, {"learning_rate": 1e-2}]
    lengths = make_grid("quickstart", ["symnoise"], lengths=["0.25", "1"], compute_matched=True)
    assert [(row.name, str(row.length)) for row in lengths.rows] == [
        ("none", "1"),
        ("symnoise", "1"),
        ("none", "1/2"),
        ("none", "1/4"),
    ]
    assert [str(row.length) for row in make_grid("quickstart", ["none"], lengths=None).rows] == ["1", "1/2", "1/4"]
    schedule = ["neft_uniform.alpha={schedule: linear, start: 10, end: 0}"]
    assert make_grid("quickstart", ["neft_uniform"], settings=schedule).rows[1].noise["alpha"]["start"] == 10


def test_a_control_that_other_options_overrule_is_refused(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: quickstart\nmax_steps: '10'\n")
    assert len(make_grid(str(recipe), controls=["weight_decay"]).rows) == 3
    with pytest.raises(NoiseError, match="got 'epochs_2': the recipe has max_steps 10.$"):
        make_grid(str(recipe), controls=["epochs_2"])
    control = tmp_path / "rank.yaml"
    control.write_text("extends: base\nlora_r: 4\n")
    with pytest.raises(NoiseError, match="rank.yaml': the recipe has no adapter.$"):
        make_grid("quickstart", controls=[str(control)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_length: 64", "controls must leave alone what losses are measured on, got '.*' with max_length"),
        ("dataset_test_split: train", "controls must leave alone what .* with dataset_test_split"),
        ("weight_decay: 0.1\nnoise: symnoise", "controls must be plain training, got '.*' with noise"),
        ("neftune_noise_alpha: 5", "controls must be plain training, got '.*' with neftune_noise_alpha"),
    ],
)
def test_a_control_with_noise_or_another_yardstick_is_refused(tmp_path, text, message):
    control = tmp_path / "c.yaml"
    control.write_text(f"extends: base\n{text}\n")
    with pytest.raises(NoiseError, match=message):
        make_grid("quickstart", controls=[str(control)])


def test_the_key_follows_contents_not_paths(tmp_path):
    (tmp_path / "a.jsonl").write_text("1")
    one = fingerprint({"dataset_name": str(tmp_path / "a.jsonl")})
    mixture = {"datasets": [{"path": "json", "data_files": {"train": str(tmp_path / "a.jsonl")}}]}
    template, mixed = {"chat_template_path": str(tmp_path / "a.jsonl")}, fingerprint(mixture)
    written = fingerprint(template)
    (tmp_path / "a.jsonl").write_text("2")
    assert fingerprint({"dataset_name": str(tmp_path / "a.jsonl")}) != one
    assert fingerprint(template) != written and fingerprint(mixture) != mixed


def test_margins_that_change_are_those_of_finished_runs_too(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: quickstart\n")
    (task,) = tasks(make_grid(str(recipe), ["none"], 1), tmp_path / "out")
    point = Measurement(3, 1.0, {"test_loss": 2.0})
    results.write(task.path, replace(task.record, status="ok", end=point, best=point))
    recipe.write_text("extends: quickstart\nmargins: {test_loss: 0.02}\n")
    later = tasks(make_grid(str(recipe), ["none"], 1), tmp_path / "out")
    assert planning.missing(later) == [] and results.read(task.path).margins == {"test_loss": 0.02}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strategies", "neft_unifrom"], "did you mean neft_uniform"),
        (["--strategies", "x*"], "strategies must match a name, got 'x*'"),
        (["--strategies", "symnoise", "--set", "neft_uniform.alpha=5"], "set must name a chosen strategy"),
        (["--set", "alpha=5"], "set must be strategy.argument=value,value, got 'alpha=5'"),
        (["--set", "neft_uniform.alpha="], "set must be strategy.argument=value,value"),
        (
            ["--set", "neft_uniform.alpha=5", "--set", "neft_*.alpha=10"],
            "set must give neft_uniform.alpha once, with all its values, got it twice",
        ),
        (["--set", "neft_uniform.alpha=-1"], "alpha must be a finite number >= 0, got -1"),
        (["--controls", "lora_dropout"], "control 'lora_dropout' needs use_peft: true in the recipe"),
        (
            ["--controls", "weight_decay", "--set", "weight_decay.weight_decay=0.0"],
            "controls must change an option of the recipe, got 'weight_decay': the recipe has weight_decay 0.0",
        ),
        *(
            (
                ["--controls", "learning_rate", "--set", f"learning_rate.learning_rate={value}"],
                "got 'learning_rate': the recipe has learning_rate 0.001 already.",
            )
            for value in ("0.001", "1.0e-3", "1e-3", "10E-4", "'0.001'", "2e-3,1e-3")
        ),
        (
            ["--controls", "epochs_1", "--set", "epochs_1.max_steps=-1", "--set", "epochs_1.num_train_epochs=2,1.0"],
            "got 'epochs_1': the recipe has num_train_epochs 1.0, max_steps -1 already",
        ),
        (["--controls", "weight_decay", "--set", "weight_decay.weight_dekay=1"], "did you mean weight_decay"),
        (["--controls", "weight_decay", "--set", "weight_decay.weight_decay=null"], "must be a number, got None"),
        (["--controls", "weight_decay", "--set", "weight_decay.weight_decay=lots"], "invalid float value: 'lots'"),
        (["--controls", "weight_decay", "--set", "weight_*.seed=1,2"], "set must name an option that a comparison"),
        (["--lengths", "1/2,0"], "lengths must be multiples of the recipe's steps above 0 and up to 10, got '0'"),
        (["--lengths", "half"], "lengths must be multiples of the recipe's steps above 0 and up to 10, got 'half'"),
        (["--controls", "nothing_such"], "config must be a YAML file or a name that neft-zoo recipes ls shows"),
        (["--seeds", "0"], "seeds must be a whole number >= 1, got 0"),
        (["--jobs", "0"], "jobs must be a whole number >= 1, got 0"),
        (["--train_records", "0"], "train_records must be a whole number >= 1, got 0"),
        (["--evaluate", "anwsers: 3"], "options of an evaluation must be among"),
        (["--evaluate", "rates: 0.1"], "rates must be a value like"),
        (["--evaluate", "[3"], "evaluate must be options such as"),
    ],
)
def test_wrong_input_ends_before_a_run(tmp_path, capsys, argv, message):
    assert main(["compare", "quickstart", "--output", str(tmp_path / "out"), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("steps", "usual"), [(-1, "1/4 1/2"), (3, "1/4 1/2"), (2, "1/2"), (1, "")])
def test_every_length_of_plain_training_has_a_step(steps, usual):
    assert read_lengths(None, {"max_steps": steps}) == {Fraction(length) for length in usual.split()}
    if steps == 1:
        with pytest.raises(NoiseError, match="lengths must leave at least one of the recipe's 1 max_steps, got '1/4'"):
            read_lengths(["1/4"], {"max_steps": steps})


@pytest.mark.parametrize(
    ("split", "records", "message"),
    [
        ("test", "", "the recipe's dataset must be readable and its files not empty"),
        ("test", '{"prompt": "a", "compl', "the recipe's dataset must be readable and its files not empty"),
        ("test", None, "the dataset must have a split 'test', got train"),
        ("train", "", "the recipe's dataset must be readable and its files not empty"),
        ("more", '{"prompt": "a", "completion": "b"}', "train_records must be at most the 1 that there are, got 2"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "tune", "alpha"])
def test_an_empty_or_missing_split_ends_before_a_run(tmp_path, capsys, monkeypatch, command, split, records, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    whole = '{"prompt": "a", "completion": "b"}'
    for name, text in ({"train": whole, "test": whole} | {split: records}).items():
        if text is not None and name != "more":
            (tmp_path / "data" / f"{name}.jsonl").write_text(text)
    (tmp_path / "r.yaml").write_text("extends: quickstart\ndataset_name: data\n")
    argv = [command, "r.yaml", "--output", "out"] + (["--train_records", "2"] if split == "more" else [])
    if command == "alpha" and (split == "more" or records is None):
        pytest.skip("it draws nothing and looks at no test split")
    if command == "tune":
        pytest.importorskip("optuna")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert f"neft-zoo: error: {message}" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists(), "nothing is half-written"
