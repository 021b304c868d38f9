"""What a release ships, and the files that a public project is run by."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from neft_zoo.compare.results import NUMBERS_SINCE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own dependency there

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command, cwd=ROOT, code=0):
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, (done.stdout + done.stderr)[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Returns a folder with the sdist and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    run("build", "--no-isolation", "--outdir", out)
    return out


def test_sdist_and_wheel_hold_types_demo_and_what_a_release_is_checked_with(built):
    wheel = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert {"neft_zoo/py.typed", "neft_zoo/recipes/quickstart/demo.py"} <= wheel
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    needed = "neft_zoo/py.typed recipes/quickstart/demo.py constraints.txt constraints-oldest.txt Makefile SECURITY.md"
    assert {*needed.split(), "CITATION.cff", "tools/release.py", ".pre-commit-config.yaml"} <= sdist
    assert {str(path.relative_to(ROOT)) for path in WORKFLOWS} <= sdist


def test_pre_commit_refuses_and_repairs_what_make_check_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "bad.py").write_text("import os\nx = {'a' : 1}\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "bad.py", ".pre-commit-config.yaml"], cwd=tmp_path, check=True)
    told = run("pre_commit", "run", "--all-files", cwd=tmp_path, code=1)
    assert re.findall(r"(ruff \w+)\.+Failed", told) == ["ruff check", "ruff format"]
    assert (tmp_path / "bad.py").read_text(encoding="utf-8") == 'x = {"a": 1}\n'
    run("pre_commit", "run", "--all-files", cwd=tmp_path)


@pytest.mark.parametrize(
    "schema, files",
    [("citation-file-format", [ROOT / "CITATION.cff"]), ("github-workflows", WORKFLOWS)],
    ids=["citation", "workflows"],
)
def test_files_fit_their_schema(schema, files):
    run("check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


def test_the_citation_says_what_the_metadata_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    theirs = [cited[key] for key in ("title", "abstract", "license", "authors", "keywords")]
    assert theirs == [PROJECT[key] for key in ("name", "description", "license", "authors", "keywords")]


def test_the_workflows_run_targets_of_the_makefile_on_every_supported_python():
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()]
    called = {target for job in jobs if "uses" in job for target in job["with"]["targets"].split()}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"check", "docs", "test", "test-all", "test-oldest", "release"} <= called <= targets
    (matrix,) = [job["strategy"]["matrix"]["python"] for job in jobs if "strategy" in job]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert matrix == named and PROJECT["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_names_actions_by_commit(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert all(re.fullmatch(r"\./\S+|\S+@[0-9a-f]{40}", name) for name in re.findall(r"uses: (\S+)", text))
    assert not re.search(r"https?://", text)


def test_the_pinned_versions_can_be_installed_on_the_oldest_python():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    checked = []
    for pin in pins:
        try:
            accepted = metadata(pin.name)["Requires-Python"]
        except PackageNotFoundError:  # Ray and other large ones come with make test-all only
            continue
        if pin.marker is None or pin.marker.evaluate({"python_version": oldest}):
            checked.append(pin.name)
            assert oldest in SpecifierSet(accepted or ""), f"{pin} needs Python {accepted}"
    assert {"torch", "peft", "ruff"} <= set(checked)


def test_committed_results_are_still_valid_under_this_version():
    versions = {json.loads(path.read_text())["versions"]["neft_zoo"] for path in RESULTS.rglob("*.json")}
    assert versions == {NUMBERS_SINCE}
