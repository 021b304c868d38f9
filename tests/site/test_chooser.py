"""Every answer of the chooser: a recipe that reads, a comparison that plans, and Python that runs."""

import ast
import json
import random
import re
import shlex
from dataclasses import asdict
from functools import cache

import made_up
import pytest
import yaml

from neft_zoo.compare import loading, rows
from neft_zoo.config import options, recipe
from neft_zoo.registry.entries import make

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import chooser  # noqa: E402

CASES = chooser.cases()


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    return loading.load(made_up.committed(tmp_path_factory.mktemp("chooser") / "results"))[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder that has the data of the answers, in which they are run."""
    with open(recipe.folder() / "quickstart/data/train.jsonl", encoding="utf-8") as file:
        records = [json.loads(next(file)) for _ in range(6)]
    texts = [{key: each[key][0]["content"] for key in ("prompt", "completion")} for each in records]
    (tmp_path / "my-data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in texts))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def distinct(field):
    """Return a case for every text that an answer's field can be."""
    answers = {getattr(chooser.answer(case, []), field): case for case in CASES}
    assert len(answers) > 1
    return answers


@pytest.mark.parametrize("count", [8, pytest.param(None, marks=pytest.mark.slow)])
def test_every_recipe_reads(folder, count):
    recipes = sorted(distinct("recipe"))
    for text in random.Random(0).sample(recipes, count or len(recipes)):
        (folder / "my.yaml").write_text(text)
        loaded = recipe.load("my.yaml")
        run = options.read_options({**loaded.values, "bf16": False, "use_cpu": True}, loaded.origin)
        assert run.training.noise is not None


def test_every_comparison_plans(folder):
    (folder / "my.yaml").write_text(chooser.answer(chooser.Case(), []).recipe)
    loaded = recipe.load("my.yaml")
    for text in random.Random(0).sample(sorted(distinct("compare")), 8):
        words = shlex.split(text.partition("neft-zoo report")[0].replace("\\\n", " "))
        given = [(words[place][2:], words[place + 1]) for place in range(3, len(words), 2)]
        chosen = rows.select(dict(given)["strategies"].split(","))
        control = dict(given)["controls"]
        settings = [rows.read_setting(value, [*chosen, control]) for name, value in given if name == "set"]
        assert len(rows.rows_of(chosen, settings)) > len(chosen) and rows.control_rows(control, loaded, settings)
        assert rows.length_rows(rows.read_lengths(dict(given)["lengths"].split(","), {}))


def test_every_code_compiles_and_has_the_noise():
    for text, case in distinct("code").items():
        if case.framework in ("trl", "loop", "unsloth"):
            ast.parse(text)
        assert chooser.noise_for(case)[0] in text and "%" not in text


@pytest.mark.parametrize("framework", ["axolotl", "swift", "llamafactory"])
def test_every_shell_answer_writes_what_it_names_and_gives_the_noise(framework):
    for case in {case for case in CASES if case.framework == framework and case.family in ("Llama 3", "Gemma 2")}:
        files, commands = written(chooser.answer(case, []).code)
        named = {word for word in shlex.split(" ".join(commands)) if word.endswith((".py", ".yaml"))}
        assert named and named <= set(files)
        noise, _ = chooser.noise_for(case)
        if framework == "swift":
            (call,) = [each for each in ast.walk(ast.parse(files["noise.py"])) if isinstance(each, ast.Call)]
            assert call.func.id == "register" and make(ast.literal_eval(call.args[0])).name == noise
        else:
            options = yaml.safe_load(files["my.yaml"])
            assert make(options["noise"]).name == noise
            assert framework != "llamafactory" or options["dataset"] in json.loads(files["dataset_info.json"])


def written(code):
    """Return the files that a shell's program writes, and its other lines."""
    files = dict(re.findall(r"cat > (\S+) <<'END'\n(.*?\n)END\n", code, flags=re.DOTALL))
    rest = re.sub(r"cat > \S+ <<'END'\n.*?\nEND\n", "", code, flags=re.DOTALL)
    return files, [line.rstrip("\\") for line in rest.splitlines() if not line.startswith("#")]


def on_this_machine(code):
    """Return an answer's Python with a small model and few steps, as this machine has no GPU."""
    model = json.dumps(str(recipe.folder() / "quickstart/model"))
    for name in {model for sizes in chooser.MODELS.values() for model in sizes.values()}:
        code = code.replace(f'"{name}"', model)
    code = code.replace(
        "    bf16=True,", '    bf16=False,\n    use_cpu=True,\n    max_steps=1,\n    report_to="none",'
    )
    return code.replace("bfloat16", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["no", "yes"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("framework", ["trl", "loop"])
def test_python_runs(folder, framework, method, packing):
    case = chooser.Case(framework=framework, method=method, packing=packing, epochs="1")
    exec(compile(on_this_machine(chooser.answer(case, []).code), "answer", "exec"), {})
    assert any((folder / "runs/my").glob("*.safetensors"))


def test_the_page_says_what_the_tables_say(visit, experiments):
    page = visit("choosing.html")
    for case in random.Random(0).sample(CASES, 40):
        found = page.evaluate("given => window.neftChooser.answer(given)", asdict(case))
        assert found == asdict(chooser.answer(case, experiments)), case


def test_choosing_changes_the_code_and_the_address(visit):
    page = visit("choosing.html#family=Gemma+2&size=9B&method=lora")
    assert "token_relative" in page.inner_text("#chooser-code") and "google/gemma-2-9b" in page.inner_text(
        "#chooser-code"
    )
    page.select_option("[name=method]", "qlora")
    assert "load_in_4bit" in page.inner_text("#chooser-code") and "method=qlora" in page.url
    page.select_option("[name=family]", "Llama 3")
    page.go_back()
    assert "google/gemma-2-9b" in page.inner_text("#chooser-code")
    assert page.input_value("[name=family]") == "Gemma 2" and page.input_value("[name=size]") == "9B"
