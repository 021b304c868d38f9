"""The command line as a user meets it."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from neft_zoo import registry
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.registry.docstrings import readable


@pytest.fixture
def cli(capsys):
    def run(*argv):
        status = main([str(argument) for argument in argv])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_list_shows_every_entry_and_filters(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a row per entry
    status, out, _ = cli("list")
    header, *lines = out.splitlines()
    assert status == 0 and header.split() == ["name", "family", "passes", "site", "paper", "what"]
    for name, line in zip(registry.names(), lines, strict=True):
        entry, strategy = registry.entry(name), registry.make(name)
        paper = entry.paper.rpartition("/")[2] if entry.paper else "-"
        cells = [name, strategy.family, str(strategy.objective.passes), strategy.site, paper, entry.summary]
        assert [cell.strip() for cell in re.split(r"\s{2,}", line)] == cells
    _, out, _ = cli("list", "neft_[gu]*")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["neft_gaussian", "neft_uniform"]
    assert cli("list", "x*")[0] == 2


@pytest.mark.parametrize("name", registry.names())
def test_show_explains_every_entry(cli, name):
    status, out, _ = cli("show", name)
    entry = registry.entry(name)
    assert status == 0 and entry.summary.split(":")[0] in out.replace("\n", " ")
    assert all(f"  {argument}: " in out for argument in entry.parameters)
    assert "$$" not in out and "\\frac" not in out, "the formula is TeX"
    assert "Cost " in out and (entry.paper or "none") in out
    block = yaml.safe_load(out.split("In a recipe")[1])["noise"]
    assert registry.make(block) == registry.make(name)


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (
            r"d_{k+1} = \Pi_{\lVert d \rVert \le r}(d_k + \eta\, g_k / \sqrt D)",
            "d_{k+1} = Π_{‖d‖ ≤ r}(d_k + η g_k / √(D))",
        ),
        (r"z \sim U[-1, 1], \quad e^{\mathrm{cut}} = e \odot m", "z ∼ U[-1, 1], e^cut = e ⊙ m"),
    ],
)
def test_a_formula_is_readable_without_tex(tex, expected):
    assert readable(f"$${tex}$$\n\nText.") == f"    {expected}\n\nText."


@pytest.mark.parametrize("name", registry.names())
def test_cite_gives_bibtex(cli, name):
    status, out, _ = cli("cite", name)
    paper = registry.entry(name).paper
    assert status == 0 and out.startswith("@") and out.count("{") == out.count("}")
    assert "author" in out and (paper is None or paper in out)


@pytest.mark.parametrize(
    "argv", [["list"], ["show", "neft_uniform"], ["recipes", "ls"], ["cite", "symnoise"], ["--version"]]
)
def test_quick_commands_do_not_import_torch(argv):
    code = f"import sys\nfrom neft_zoo.cli.main import main\ntry: main({argv})\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_runs_as_a_module_and_into_a_closed_pipe():
    command = f"{sys.executable} -m neft_zoo list | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("name")


def test_recipes_ls_and_cp(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = cli("recipes", "ls")
    assert [line.split()[0] for line in out.splitlines()[1:]] == recipe.names()
    status, out, _ = cli("recipes", "cp", "paper/llama2-7b-alpaca", tmp_path)
    assert status == 0 and recipe.load(out.strip()).values == recipe.load("paper/llama2-7b-alpaca").values
    assert "must not exist yet" in cli("recipes", "cp", "paper/llama2-7b-alpaca", tmp_path)[2]
    assert "existing folder" in cli("recipes", "cp", "base", tmp_path / "no" / "r.yaml")[2]
    assert cli("recipes", "cp", "nothing", tmp_path)[0] == 2


def test_sft_trains_from_a_recipe_and_the_command_line_wins(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    flags = "--max_steps 2 --eval_strategy no --logging_steps 1 --per_device_train_batch_size 2 --disable_tqdm true"
    status, printed, error = cli(
        "sft",
        "--config",
        "quickstart",
        "--output_dir",
        out,
        *flags.split(),
        "--noise.alpha.schedule",
        "linear",
        "--noise.alpha.start=6",
        "--noise.alpha.end",
        "0",
    )
    assert status == 0, error
    assert f"saved to {out}" in printed
    saved = json.loads((out / "noise.json").read_text())
    assert saved["arguments"]["alpha"] == {"schedule": "linear", "start": 6.0, "end": 0.0}
    log = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert [line["noise/alpha"] for line in log if "loss" in line] == [6.0, 3.0]
    again = ["sft", "--config", "quickstart", "--output_dir", out, *flags.split(), "--noise", "symnoise"]
    status, _, error = cli(*again)
    assert status == 2 and "holds a run with noise neft_uniform" in error


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ("lerning_rate: 3", [], "r.yaml line 2: unknown option 'lerning_rate'; did you mean learning_rate?"),
        ("", ["--lerning_rate", "3"], "lerning_rate"),
        ("learning_rate: fast", [], "fast"),
        ("", ["--learning_rate", "fast"], "fast"),
        ("noise: neft_unifrom", [], "did you mean neft_uniform"),
        ("noise: {name: neft_uniform, alpha: -3}", [], "alpha must be a finite number >= 0, got -3"),
        ("noise: {name: neft_uniform, alpha: .nan}", [], "got nan"),
        ("noise: [neft_uniform]", [], "got ['neft_uniform']"),
        ("", ["--noise", "nothing"], "got 'nothing'"),
        ("", ["--noise"], "--noise needs a value"),
        ("noise: null", ["--noise.alpha", "3"], "--noise.alpha needs a strategy"),
        ("noise: symnoise\nneftune_noise_alpha: 5", [], "when noise is given, got 5: two noises would add up."),
        ("noise: none\nneftune_noise_alpha: 5", [], "when noise is given, got 5: none says to train without noise."),
        (
            "dataset_name: ./no/such/data",
            [],
            "dataset_name must be an existing path or a name on the hub, got './no/such/data'",
        ),
        ("dataset_name: rows.jsonl", [], "got 'rows.jsonl'"),
        ("model_name_or_path: /no/such/model", [], "model_name_or_path must be an existing path"),
        ("dataset_train_split: trian", [], "must have a split 'trian', got train"),
        ("resume_from_checkpoint: ./nowhere", [], "resume_from_checkpoint must be true or a checkpoint's folder"),
        ("trust_remote_code: [1", [], "must be YAML"),
    ],
)
def test_wrong_input_ends_before_training(tmp_path, monkeypatch, text, argv, message):
    """In a process of its own: exit status 2, one sentence, no traceback, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(f"extends: quickstart\n{text}\n")
    status, error = sft_in_process(["sft", "--config", "r.yaml", "--output_dir", "out", *argv])
    assert status == 2 and message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def sft_in_process(argv):
    """Run the command in this process, as far as exit status and standard error go."""
    import contextlib
    import io

    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(argv)
        except SystemExit as stop:  # argparse
            status = stop.code
    return status, error.getvalue()


def test_a_config_without_a_name_and_a_missing_one():
    assert "--config needs" in sft_in_process(["sft", "--config"])[1]
    status, error = sft_in_process(["sft", "--config", "quikstart"])
    assert status == 2 and "did you mean quickstart" in error
    rest = ["--output_dir", "y", "--use_cpu", "true"]
    assert "sft needs a recipe" in sft_in_process(["sft", *rest])[1]
    assert "model_name_or_path must be" in sft_in_process(["sft", "--dataset_name", "x", *rest])[1]
    assert "dataset_name must be" in sft_in_process(["sft", "--model_name_or_path", "x", *rest])[1]
