"""Names, arguments, schedules, and entries that others install."""

import json
import math
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

import neft_zoo
from neft_zoo import NoiseError, Strategy, make, register, registry
from neft_zoo.noise.schedules import Cosine, Linear, WarmUp, Window, parse_scalar, schedule_to_dict, value_at


def test_the_folder_is_the_registry():
    files = {path.stem for path in (Path(registry.__file__).parents[1] / "strategies").glob("[!_]*.py")}
    assert set(registry.builtin_names()) == files
    for name in registry.builtin_names():
        entry = registry.entry(name)
        assert entry.name == name and entry.summary and entry.version >= 1
        assert entry.build.__module__ == f"neft_zoo.strategies.{name}"


@pytest.mark.parametrize("name", registry.builtin_names())
def test_every_argument_is_explained(name):
    entry = registry.entry(name)
    text = entry.build.__doc__
    for argument in entry.parameters:
        assert f"    {argument}: " in text
    assert "Example:" in text and "$$" in text


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("neft_unifrom", r"must name a strategy \(neft-zoo list\), got 'neft_unifrom'; did you mean neft_uniform"),
        ("", r"must name a strategy \(neft-zoo list\), got ''\.$"),
        ({"name": "neft_uniform", "alhpa": 3}, "takes alpha, length, space, got 'alhpa'; did you mean alpha"),
        ({"name": "none", "alpha": 3}, "none takes no arguments, got 'alpha'"),
        ({"name": "neft_uniform", "alpha": "lots"}, "alpha must be a number or a schedule, got 'lots'"),
        ({"name": "neft_uniform", "alpha": True}, "got True"),
        ({"name": "neft_uniform", "alpha": None}, "got None"),
        ({"name": "neft_uniform", "alpha": [5]}, r"got \[5\]"),
        ({"name": "neft_uniform", "alpha": -0.1}, "alpha must be a finite number >= 0, got -0.1"),
        ({"name": "neft_uniform", "alpha": math.nan}, "got nan"),
        ({"name": "neft_uniform", "alpha": math.inf}, "got inf"),
        ({"name": "neft_uniform", "length": "doc"}, "length must be one of 'document', 'padded', got 'doc'"),
        ({"name": "neft_gaussian", "match_rms": 1}, "match_rms must be true or false, got 1"),
        ({"name": "token_subspace", "k": 2**63}, "k must be a whole number, got "),
        ({"name": "neft_uniform", "alpha": {"schedule": "linaer", "start": 1, "end": 0}}, "got 'linaer'"),
        ({"name": "neft_uniform", "alpha": {"schedule": "linear", "start": 1}}, "needs start, end"),
        (
            {"name": "neft_uniform", "alpha": {"schedule": "linear", "start": 1, "stop": 0}},
            "takes start, end, got 'stop'",
        ),
        ({"name": "neft_uniform", "alpha": {"schedule": "linear", "start": 5, "end": -5}}, "at progress .* got -"),
        (
            {"name": "neft_uniform", "alpha": {"schedule": "warmup", "value": 5, "fraction": 2}},
            "fraction must be between",
        ),
        ({"name": "neft_uniform", "alpha": {}}, "got None"),
        ({"alpha": 3}, "a mapping with a name"),
        (None, "got None"),
        (7, "got 7"),
    ],
)
def test_bad_noise_is_one_sentence(noise, message):
    with pytest.raises(NoiseError, match=message) as caught:
        make(noise)
    assert "\n" not in str(caught.value)


def test_numbers_may_be_spelled():
    assert make({"name": "neft_uniform", "alpha": "5e0"}) == make("neft_uniform", alpha=5)


def test_a_strategy_is_passed_through_and_takes_no_arguments():
    strategy = make("symnoise")
    assert make(strategy) is strategy
    with pytest.raises(NoiseError, match="no further arguments, got alpha"):
        make(strategy, alpha=3)


@pytest.mark.parametrize(
    ("name", "site", "family", "passes"),
    [
        ("none", "-", "single pass", 1),
        ("neft_uniform", "embeddings", "single pass", 1),
        ("embed_mix", "embeddings", "single pass", 1),
        ("hype", "layers", "single pass", 1),
        ("masked_thought", "token ids", "single pass", 1),
        ("noisy_tune", "weights", "weights", 1),
        ("r_drop", "dropout", "consistency", 2),
        ("symnoise", "embeddings", "consistency", 2),
        ("fgm", "embeddings", "adversarial", 2),
        ("sam", "weights", "adversarial", 2),
        ("vaccine", "layers", "adversarial", 2),
        ("mixout", "weights", "weights", 1),
    ],
)
def test_a_strategy_says_where_and_how_it_works(name, site, family, passes):
    strategy = make(name)
    assert (strategy.site, strategy.family, strategy.objective.passes) == (site, family, passes)
    assert strategy.clean == (name in ("none", "noisy_tune", "mixout"))


@pytest.mark.parametrize(
    ("noise", "layers"),
    [("neft_uniform", False), ("hype", "all"), ({"name": "lat", "layers": [1, -1]}, (1, -1)), ("lnsr", (0,))],
)
def test_a_strategy_says_which_layers_must_be_hooked(noise, layers):
    assert make(noise).layers == layers


def test_a_name_is_registered_once():
    def neft_uniform() -> Strategy:
        return Strategy(None)

    make("neft_uniform")
    with pytest.raises(NoiseError, match="'neft_uniform' is registered already"):
        register(paper=None, version=1)(neft_uniform)


NUMBERS = st.floats(0, 100)
SCHEDULES = st.one_of(
    st.builds(Linear, NUMBERS, NUMBERS),
    st.builds(Cosine, NUMBERS, NUMBERS),
    st.builds(WarmUp, NUMBERS, st.floats(0, 1)),
    st.builds(Window, NUMBERS, st.floats(0, 0.5), st.floats(0.5, 1, exclude_min=True)),
)


@settings(deadline=None)  # the machine may be busy
@given(SCHEDULES, st.floats(0, 1))
def test_schedules_round_trip_and_stay_between_their_ends(schedule, progress):
    saved = json.loads(json.dumps(schedule_to_dict(schedule)))
    assert parse_scalar("alpha", saved) == schedule == eval(repr(schedule))
    assert -1e-9 <= value_at(schedule, progress) <= 100 + 1e-9


def test_schedules_meet_their_ends():
    assert [Linear(8, 2)(p) for p in (0, 0.5, 1)] == [8, 5, 2]
    assert [Cosine(8, 2)(p) for p in (0, 0.5, 1)] == pytest.approx([8, 5, 2])
    assert [WarmUp(8, 0.5)(p) for p in (0, 0.25, 0.5, 1)] == [0, 4, 8, 8]
    assert [WarmUp(8, 0)(p) for p in (0, 1)] == [8, 8]
    assert [Window(8, 0.2, 0.6)(p) for p in (0, 0.2, 0.5, 0.6, 1)] == [0, 8, 8, 0, 0]
    assert [Window(8)(p) for p in (0, 1)] == [8, 8]


PLUGIN = '''
from neft_zoo.distributions import Gaussian
from neft_zoo.noise import AdditiveNoise
from neft_zoo.registry import Strategy, register
from neft_zoo.scales import Fixed


@register(paper=None, version=3)
def {name}(size: float = 0.25) -> Strategy:
    """A third party's own noise."""
    return Strategy(AdditiveNoise(Gaussian(), Fixed(size)))
'''
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "dummy-noise"
version = "1.0"
[project.entry-points."neft_zoo.strategies"]
dummy = "dummy_noise:dummy"
broken = "dummy_noise_missing:broken"
misnamed = "dummy_noise:dummy"
[tool.hatch.build.targets.wheel]
only-include = ["dummy_noise.py"]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install a real third-party distribution into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "dummy_noise.py").write_text(PLUGIN.format(name="dummy"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def within(installed, code):
    script = f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_an_installed_third_party_entry_is_one_of_the_zoo(installed, monkeypatch, capsys, imported_anew):
    monkeypatch.syspath_prepend(installed)
    import neft_zoo
    from neft_zoo.cli.main import main
    from neft_zoo.testing import check_strategy

    assert "dummy" in neft_zoo.names()
    made = neft_zoo.make({"name": "dummy", "size": 0.5})
    assert made.version == 3 and made.noise.scale.size == 0.5
    check_strategy("dummy", max_examples=3)
    assert main(["show", "dummy"]) == 0
    said = capsys.readouterr().out
    assert "A third party's own noise." in said and "size: number, default 0.25" in said


@pytest.mark.parametrize(
    ("name", "message"), [("broken", "cannot be imported"), ("misnamed", "must be a @register'ed")]
)
def test_a_broken_third_party_entry_is_one_sentence(installed, name, message):
    done = within(installed, f"from neft_zoo.cli.main import main; sys.exit(main(['show', {name!r}]))")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_public_names_are_there():
    older = Version(version("trl")) < Version("1.16")
    for name in neft_zoo.__all__:
        if older and name == "DistillationTrainer":
            with pytest.raises(NoiseError, match="needs trl>=1.16, got"):
                getattr(neft_zoo, name)
        else:
            assert callable(getattr(neft_zoo, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        neft_zoo.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("embedding_dropout", "p", 1.5),
        ("token_dropout", "p", 3),
        ("neft_uniform", "alpha", -5),
        ("r3f", "weight", -50),
    ],
)
def test_a_window_between_tenths_is_checked_inside(name, argument, value):
    window = {"schedule": "window", "value": value, "begin": 0.11, "end": 0.19}
    with pytest.raises(NoiseError, match=rf"{argument} at progress 0\.11 must be .*, got {value}"):
        make(name, **{argument: window})


@pytest.mark.parametrize("edge", [0.0, 0.5, 1.0])
def test_a_window_that_no_step_is_inside_of_is_refused(edge):
    with pytest.raises(NoiseError, match=rf"end must be above begin, {edge:g}, .* got {edge:g}"):
        make("neft_uniform", alpha={"schedule": "window", "value": 5, "begin": edge, "end": edge})
