"""What holds for every command: spelling of flags, help, refusals, what is imported, what must be installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neft_zoo.cli.extras import NEEDS
from neft_zoo.cli.main import MODULES, main
from neft_zoo.config.package_data import shipped

COMMANDS = [*([name] for name in MODULES), ["recipes", "ls"], ["recipes", "cp"]]
LEAVES = [command for command in COMMANDS if command != ["recipes"]]
HEAVY = ("torch", "trl", "transformers", "accelerate", "scipy", "matplotlib", "optuna", "openai")


def run(code, *argv):
    """Run Python with `argv` as a user's command line in a process of its own."""
    code = f"import sys\n{code}\nfrom neft_zoo.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_shows_an_example_that_parses(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    try:
        assert main([*command, "--help"]) == 0
    except SystemExit as stop:  # argparse's own
        assert stop.code == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: neft-zoo {' '.join(command)}") and "\nexample" in page
    assert max(map(len, page.splitlines())) <= 80
    examples = [line.split()[1:] for line in page.splitlines() if line.startswith("  neft-zoo")]
    assert examples and all(example[: len(command)] == command or command == ["recipes"] for example in examples)
    flags = {flag for example in examples for flag in example if flag.startswith("--")}
    assert all(flag in page.split("example")[0] or flag.startswith("--noise.") for flag in flags)


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_an_unknown_flag_is_refused_before_anything_is_loaded(command):
    check = f"import atexit\natexit.register(lambda: print(*({set(HEAVY)!r} & set(sys.modules))))"
    done = run(check, *command, "--hepl")
    assert done.returncode == 2 and done.stdout == "\n"
    needed = "" if command[0] not in ("sft", "doctor") else f"{command[0]} needs a recipe"
    assert needed in done.stderr if needed else done.stderr.endswith("unknown option '--hepl'; did you mean --help?\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("sft quickstart --lerning_rate 3", "unknown option '--lerning_rate'; did you mean --learning_rate?"),
        (
            "sft quickstart --batch-size=3",
            "unknown option '--batch_size'; did you mean --per_device_train_batch_size?",
        ),
        ("sft quickstart --num_proceses 2", "did you mean --num_processes?"),
        ("sft quickstart --noise neft_unifrom", "did you mean neft_uniform"),
        ("sft quikstart", "got 'quikstart'; did you mean quickstart"),
        ("sft r.yaml", "r.yaml line 2: unknown option 'epochs'; did you mean num_train_epochs?"),
        ("doctor r.yaml", "r.yaml line 2: unknown option 'epochs'; did you mean num_train_epochs?"),
        ("doctor quickstart --real_modle", "did you mean --real_model?"),
        ("doctor", "doctor needs a recipe: neft-zoo doctor RECIPE, such as quickstart."),
        ("sft", "sft needs a recipe: neft-zoo sft RECIPE, such as quickstart."),
        ("compare", "the following arguments are required: RECIPE"),
        ("compare quickstart --sedes 3", "unknown option '--sedes'; did you mean --seeds?"),
        ("compare quickstart --seeds three", "invalid int value: 'three'"),
        ("compare quickstart --seed 3", "unknown option '--seed'; did you mean --seeds?"),  # no abbreviations
        ("compare quickstart --lr 3", "unknown option '--lr': learning_rate is an option of the recipe."),
        ("tune quickstart --epochs 3", "unknown option '--epochs': num_train_epochs is an option of the recipe."),
        ("alpha quickstart --base-model m", "'--base_model': model_name_or_path is an option of the recipe."),
        ("evaluate a --config quickstart --torch_dtype f", "'--torch_dtype': dtype is an option of the recipe."),
        ("generate a --config quickstart --max_length 3", "'--max_length': max_length is an option of the recipe."),
        ("report runs --lr 3", "unknown option '--lr'."),
        ("evaluate --cofnig x", "unknown option '--cofnig'; did you mean --config?"),  # rather than: MODEL is required
        ("list a b", "unrecognized arguments: b"),
        ("cmpare quickstart", "got 'cmpare'; did you mean compare?"),
        ("--versoin", "did you mean --version?"),
        ("recipes sl", "invalid choice: 'sl'"),
    ],
)
def test_what_is_not_accepted_is_one_sentence(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("extends: quickstart\nepochs: 3\n")
    check = f"import atexit\natexit.register(lambda: print(*({set(HEAVY)!r} & set(sys.modules))))"
    done = run(check, *argv.split())
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "\n", "loaded"


@pytest.mark.parametrize("command", ["compare", "tune", "alpha", "evaluate {m} --config", "generate {m} --config"])
def test_an_unknown_option_of_a_recipe_is_named_with_its_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("extends: quickstart\nlr: 3\n")
    assert main([*command.format(m=shipped("quickstart/model")).split(), "r.yaml"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith("r.yaml line 2: unknown option 'lr'; did you mean learning_rate?")


def test_flags_are_spelled_with_either(capsys):
    for flag in ("--compute-matched", "--compute_matched"):
        assert main(["compare", "nothing", flag]) == 2
        assert "got 'nothing'" in capsys.readouterr().err
    for flags in (["--real-model", "--learning-rate=fast"], ["--real_model", "--learning_rate", "fast"]):
        assert main(["doctor", "quickstart", *flags]) == 2
        assert "invalid float value: 'fast'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        "alpha quickstart --no_plots --output",
        "compare quickstart --output",
        "tune quickstart --output",
        "evaluate a/b --config quickstart --no_plots --parts losses --output",
        "generate a/b --config quickstart --output",
        "report a --output",
        "doctor quickstart --json",
        "recipes cp quickstart",
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(argv, tmp_path):
    (tmp_path / "file").write_text("")
    check = "import atexit\natexit.register(lambda: print(*({'torch'} & set(sys.modules))))"
    done = run(check, *argv.split(), str(tmp_path / "file" / "inside"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == "\n"
    assert re.search(r"(output|json|destination) must be a (file|folder)", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_list_and_recipes_fit_80_columns():
    for command in (["list"], ["recipes", "ls"]):
        argv, narrow = [sys.executable, "-m", "neft_zoo", *command], {**os.environ, "COLUMNS": "80"}
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=narrow)
        assert max(map(len, done.stdout.splitlines())) <= 80


BLOCKER = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
OPTIONAL = sorted({need.module for need in NEEDS})
WITHOUT_EXTRAS = {
    "compare quickstart": "neft-zoo compare needs rich: pip install 'neft-zoo[compare]'.",
    "report runs": "neft-zoo report needs scipy: pip install 'neft-zoo[compare]'.",
    "tune quickstart": "neft-zoo tune needs optuna: pip install 'neft-zoo[tune]'.",
    "evaluate runs --config quickstart": "memorization needs rouge_score: pip install 'neft-zoo[eval]'.",
    "evaluate runs --config quickstart --parts losses": "--no_plots draws none) needs matplotlib: pip install",
    "alpha quickstart": "needs matplotlib: pip install 'neft-zoo[plot]'.",
    "judge a b": "neft-zoo judge needs scipy: pip install 'neft-zoo[judge]'.",
}


@pytest.mark.parametrize("argv", WITHOUT_EXTRAS)
def test_a_missing_library_is_named_with_its_extra(argv):
    done = run(BLOCKER.format(names=set(OPTIONAL)), *argv.split())
    assert done.returncode == 2 and WITHOUT_EXTRAS[argv] in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("module", OPTIONAL)
def test_one_missing_library_alone_is_named(module):
    """Each row of the table is a command that cannot start: nothing in it is missing from the table before."""
    argv = {
        "ray": "compare quickstart --ray auto",
        "rich": "compare quickstart",
        "scipy": "report runs",
        "matplotlib": "report runs --format html",
        "jinja2": "report runs --format html",
        "optuna": "tune quickstart",
        "rouge_score": "evaluate runs --config quickstart",
        "sacrebleu": "evaluate runs --config quickstart",
        "lm_eval": "evaluate runs --config quickstart --parts losses --tasks arc_easy",
        "openai": "judge a b --model m",
    }[module]
    done = run(BLOCKER.format(names={module}), *argv.split())
    assert done.returncode == 2 and f"needs {module}: pip install 'neft-zoo[" in done.stderr


@pytest.mark.parametrize(
    "argv", ["list", "recipes ls", "show symnoise", "cite symnoise", "sft --help", "doctor --help"]
)
def test_what_needs_no_extra_runs_without_any(argv):
    assert run(BLOCKER.format(names=set(OPTIONAL)), *argv.split()).returncode == 0


def test_the_table_says_which_extra_installs_a_library():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    distributions = {"lm_eval": "lm-eval", "rouge_score": "rouge-score"}
    for need in NEEDS:
        installed = {re.split(r"[\[<>=]", requirement)[0] for requirement in extras[need.extra]}
        assert distributions.get(need.module, need.module) in installed, need
    named = set(re.findall(r"[\w-]+", extras["all"][0].partition("[")[2]))
    assert named >= {need.extra for need in NEEDS}


@pytest.mark.skipif(sys.platform == "win32", reason="resource")
def test_help_of_sft_takes_less_than_3_seconds_of_a_processor():
    code = "import atexit, resource\n"
    code += "atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr))"
    done = run(code, "sft", "--help")
    assert done.returncode == 0 and float(done.stderr) < 3
