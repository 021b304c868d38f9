"""The wheel holds all that a run needs, and works where there is no checkout."""

import inspect
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from neft_zoo.config import recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return folder


def test_every_recipe_with_model_data_and_licences_is_inside(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"neft_zoo/recipes/{name}.yaml" for name in recipe.names()}
    files = {path.name for path in (recipe.folder() / "quickstart" / "model").iterdir()}
    shipped |= {f"neft_zoo/recipes/quickstart/model/{name}" for name in files}
    shipped |= {f"neft_zoo/recipes/quickstart/data/{name}" for name in ("train.jsonl", "test.jsonl", "README.md")}
    assert shipped | {"neft_zoo/registry/papers.bib"} <= inside
    assert not any(name.endswith(("openstax_text.jsonl.xz", "pretrain.py")) for name in inside)
    assert wheel.stat().st_size < 20e6


def test_it_runs_outside_a_checkout(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "strategies/symnoise" in python("-m", "neft_zoo", "recipes", "ls")
    assert "archivePrefix = {arXiv}" in python("-m", "neft_zoo", "cite", "symnoise")
    assert python("-c", "import neft_zoo; print(neft_zoo.__file__)").startswith(str(site))
    assert "neft_uniform" in python("-m", "neft_zoo", "list")


def test_the_first_snippet_of_the_readme_runs_in_an_empty_folder(site, tmp_path, monkeypatch, imported_anew):
    snippet = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    shortened = snippet.replace("max_steps=20", "max_steps=1, per_device_train_batch_size=2")
    assert shortened != snippet and "recipes/" not in snippet
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(shortened, names)
    assert inspect.getfile(names["SFTTrainer"]).startswith(str(site))
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}
