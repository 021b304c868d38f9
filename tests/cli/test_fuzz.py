"""Whatever is given as noise, recipe or command line either parses or ends in one clear sentence."""

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import neft_zoo
from neft_zoo import NoiseError, NoiseSFTConfig, make, registry
from neft_zoo.cli.main import main
from neft_zoo.cli.trl_options import read_command_line
from neft_zoo.config import recipe
from neft_zoo.config.options import read_options
from neft_zoo.noise import schedules
from neft_zoo.training import provenance

NIGHTLY = os.environ.get("NEFT_ZOO_PROFILE") == "nightly"
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def cases(fast, nightly):
    """Return hypothesis settings with this many examples."""
    examples = nightly if NIGHTLY else fast
    return settings(max_examples=examples, deadline=None, derandomize=not NIGHTLY, suppress_health_check=CHECKS)


ARGUMENTS = sorted({argument for name in registry.names() for argument in registry.entry(name).parameters})
WORDS = st.sampled_from(
    ["off", "on", "none", "null", "true", "5e0", "1_0", "nan", ".inf", "-0.0", "~", "é", "\0", "名"]
)
NUMBERS = st.one_of(
    st.integers(-3, 9), st.floats(), st.sampled_from([10**400, -(10**400), 16**3000, 2**63, 1e308, 5e-324])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=8), st.binary(max_size=4), st.dates())
MISSPELT = st.builds(
    lambda word, at: word[: at % len(word)] + word[at % len(word) + 1 :], st.sampled_from(ARGUMENTS), st.integers(0, 9)
)
KEYS = st.one_of(st.sampled_from([*ARGUMENTS, "name", "schedule", "start", "end", "value"]), MISSPELT, SCALARS)
SCHEDULE = st.fixed_dictionaries(
    {"schedule": st.one_of(st.sampled_from([*schedules.SCHEDULES]), WORDS)},
    optional={name: NUMBERS for name in ("start", "end", "value", "fraction", "begin", "stop")},
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
NAMES = st.one_of(st.sampled_from(registry.names()), SCALARS)


@st.composite
def blocks(draw):
    """Return a `noise:` block that is almost right: an entry with some of its arguments, some of them wrong."""
    name = draw(st.sampled_from(registry.names()))
    known = list(registry.entry(name).parameters) or ["alpha"]
    block = {"name": name} | draw(st.dictionaries(st.sampled_from(known), VALUES | SCHEDULE | NUMBERS, max_size=3))
    return block | draw(st.one_of(st.just({}), st.dictionaries(KEYS, VALUES, max_size=1)))


NOISE = st.one_of(blocks(), NAMES, VALUES, SCHEDULE)


def refused(error):
    """Check that a refusal is one short sentence that says what was given."""
    text = str(error)
    assert re.fullmatch(r"\S.{9,}", text), f"not one line: {text!r}"
    assert len(text) < 1000, f"too long to read: {text[:300]!r}"
    assert "Traceback" not in text and "object at 0x" not in text
    assert re.search(r"got |takes |needs |must |unknown|given |not |invalid|expected ", text), text


@cases(150, 3000)
@given(NOISE)
def test_any_noise_is_made_or_refused(noise):
    try:
        made = make(noise)
    except NoiseError as error:
        return refused(error)
    assert make(made.to_dict()) == made


@cases(40, 800)
@given(NOISE | st.text("{[\"':,}] \n1a", max_size=12))
def test_any_noise_fits_the_config_or_is_refused(noise):
    try:
        NoiseSFTConfig(output_dir="out", noise=noise, report_to="none", use_cpu=True, bf16=False)
    except NoiseError as error:
        refused(error)


def dumped(value):
    try:
        return yaml.safe_dump(value, allow_unicode=True)
    except (yaml.YAMLError, ValueError):
        return "noise: !!python/object/apply:os.getcwd []"


OPTIONS = st.sampled_from(
    "noise learning_rate lerning_rate seed max_steps env extends datasets bf16 output_dir model_name_or_path "
    "dataset_name resume_from_checkpoint fsdp deepspeed lr_scheduler_kwargs report_to neftune_noise_alpha".split()
)
TAGS = st.sampled_from(
    ["!!python/object:os.system", "!!int", "!!float", "!!bool", "!!timestamp", "!!binary", "!x", "&a", "*a"]
)
SOUP = st.builds(" ".join, st.lists(st.one_of(TAGS, WORDS, OPTIONS, st.sampled_from([*":-?[]{},|>%@\n"])), max_size=9))
YAML = st.one_of(
    st.dictionaries(OPTIONS, VALUES | NOISE, max_size=3).map(dumped),
    st.builds("{}: {}\n{}: {}".format, OPTIONS, SOUP, OPTIONS, SCALARS),
    SOUP,
    st.text(max_size=30),
)
FLAGS = st.one_of(
    st.builds("--{}={}".format, OPTIONS, WORDS | NUMBERS.map(lambda n: f"{n:.5g}" if abs(n) < 1e300 else "1" * 400)),
    st.builds("--noise.{}={}".format, st.one_of(KEYS, st.just("alpha.start")), SOUP),
    st.builds("--noise={}".format, st.one_of(st.sampled_from(registry.names()), SOUP)),
    st.sampled_from(["--noise", "--noi", "--config", "--", "-x", "--noise.alpha.schedule", "--learn", "linear", "3"]),
)


@pytest.fixture
def folder(monkeypatch):
    """Go to an empty folder; what a recipe's `env` sets is undone."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as path:
        monkeypatch.chdir(path)
        yield Path(path)
        monkeypatch.undo()
    os.environ.clear()
    os.environ.update(before)


@cases(80, 1500)
@given(YAML | st.binary(max_size=20))
def test_any_recipe_is_read_or_refused(folder, text):
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (folder / "r.yaml").write_bytes(data)
    try:
        recipe.load("r.yaml")
    except NoiseError as error:
        refused(error)


def parsed(argv):
    """Parse a command line; return the sentence it is refused with, None if it is accepted."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            read_options(*read_command_line(argv, "sft"))
        except NoiseError as error:
            refused(error)
            return str(error)
        except SystemExit as stop:
            assert stop.code in (0, 2)
            raise AssertionError(f"argparse answered by itself: {said.getvalue()[-300:]}") from None
    return None


@cases(60, 800)
@given(YAML, st.lists(FLAGS, max_size=3))
def test_any_command_line_is_parsed_or_refused(folder, text, flags):
    (folder / "r.yaml").write_bytes(("extends: quickstart\n" + text).encode("utf-8", "surrogatepass"))
    parsed(["--config", "r.yaml", *flags])


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24)
)
BAD_RECIPES = {
    "aliases that double": BOMB,
    "an alias to itself": "seed: &a [*a]\n",
    "a mapping inside itself": "noise: &a {name: neft_uniform, alpha: *a}\n",
    "deep nesting": "seed: " + "[" * 3000 + "]" * 3000,
    "no such day": "seed: 2001-99-99\n",
    "no digits": "seed: 0b_\n",
    "tag int": "seed: !!int x\n",
    "tag without text": "seed: !!int\n",
    "tag bool": "seed: !!bool x\n",
    "tag timestamp": "seed: !!timestamp x\n",
    "tag object": "seed: !!python/object/apply:os.getcwd []\n",
    "long number": f"seed: {'9' * 5000}\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a list of environment": "env: [a]\n",
    "an empty variable": "env: {'': 3}\n",
    "a variable with =": "env: {'A=B': 3}\n",
    "a number for a model": "model_name_or_path: 3\n",
    "no such home": "model_name_or_path: ~nobodyhere/x\n",
    "a long name": f"model_name_or_path: /{'x' * 5000}\n",
    "extends a long name": f"extends: {'x' * 5000}\n",
    "extends a home": "extends: ~nobodyhere/x\n",
    "bytes for a number": "noise: {name: neft_uniform, alpha: !!binary MTI=}\n",
    "a huge number": f"noise: {{name: neft_uniform, alpha: 1{'0' * 400}}}\n",
    "huge hexadecimal": f"noise: {{name: neft_uniform, alpha: 0x{'f' * 5000}}}\n",
    "a huge whole number": f"noise: {{name: pgd, steps: 1{'0' * 400}}}\n",
    "a date for a number": "noise: {name: neft_uniform, alpha: 2001-01-01}\n",
    "a key that is no word": "noise: {name: neft_uniform, 3: 4}\n",
    "a file that is not there": "deepspeed: nowhere.json\n",
    "a list for a number": "learning_rate: [1, 2]\n",
}


@pytest.mark.parametrize("text", BAD_RECIPES.values(), ids=BAD_RECIPES)
def test_a_bad_recipe_is_refused(folder, text):
    head = "" if text.startswith(("extends", "a:")) else "extends: quickstart\n"
    (folder / "r.yaml").write_text(head + text)
    assert parsed(["--config", "r.yaml", "--output_dir", "out"])


@pytest.mark.parametrize(
    "argv",
    [
        ["--noise", "[1]", "--noise.alpha", "3"],
        ["--noise", "3", "--noise.alpha", "3"],
        ["--noise", "2001-99-99"],
        ["--noise", "[" * 3000],
        ["--noise.alpha", "&a [*a]"],
        ["--noise.alpha", "!!timestamp x"],
        ["--noi", "symnoise"],
        ["--learning_rate", "fast"],
        ["--config", "~nobodyhere/x"],
        ["--config", "x" * 5000],
        ["--model_name_or_path", "~nobodyhere/x"],
        ["--resume_from_checkpoint", "~nobodyhere/x"],
    ],
)
def test_a_bad_command_line_is_refused(folder, argv):
    config = [] if argv[0] == "--config" else ["--config", "quickstart"]
    assert parsed([*config, "--output_dir", "out", *argv])


@pytest.mark.parametrize("text", ["{", "{]", '{"name": "none"', "{" * 20000, '{"name": [}', '{"a":' * 20000])
def test_bad_json_in_the_config_is_refused(text):
    with pytest.raises(NoiseError) as caught:
        NoiseSFTConfig(output_dir="out", noise=text, use_cpu=True)
    refused(caught.value)


@cases(20, 200)
@given(st.one_of(VALUES, st.fixed_dictionaries({"name": VALUES, "arguments": VALUES, "version": VALUES})))
def test_any_noise_json_is_read_or_refused(folder, saved):
    import json

    (folder / "noise.json").write_text(
        json.dumps(saved, default=str, skipkeys=True) if not isinstance(saved, int) else "7"
    )
    try:
        provenance.check(folder, make("neft_uniform"))
    except NoiseError as error:
        refused(error)


def test_code_of_others_is_not_trusted_unless_the_user_says_so(folder):
    told = ["--config", "quickstart", "--output_dir", "out"]
    for flags, trusted in ([], False), (["--trust_remote_code", "true"], True):
        assert read_options(*read_command_line([*told, *flags], "sft")).training.trust_remote_code is trusted


def test_the_package_loads_no_pickle_and_no_unsafe_yaml():
    source = {path: path.read_text() for path in Path(neft_zoo.__file__).parent.rglob("*.py")}
    unsafe = r"import pickle|torch\.load\(|yaml\.(load|full_load|unsafe_load)\("
    assert not [path for path, text in source.items() if re.search(unsafe, text)]


def test_the_exit_status_is_2(folder, capsys):
    assert main(["sft", "--config", "quickstart", "--learning_rate", "fast"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
