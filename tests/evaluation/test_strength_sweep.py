"""`neft-zoo alpha`: the sweep of a strength, what it recommends and what it refuses."""

import json
import math
from dataclasses import replace

import pytest
import yaml

from neft_zoo import NoiseError, make, registry
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.evaluation.losses import summary
from neft_zoo.evaluation.strength_sweep import find_alpha, strength_of
from neft_zoo.evaluation.sweep_report import SweepPoint, SweepReport, advice, at_excess


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a recipe: the shipped model on 24 of its records."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "data").mkdir()
    lines = (recipe.folder() / "quickstart" / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "data" / "train.jsonl").write_text("".join(lines[:24]))
    options = dict(extends="quickstart", dataset_name=str(folder / "data"), per_device_train_batch_size=8)
    options |= dict(max_length=64, warmup_steps=0, num_train_epochs=3, eval_strategy="no")
    (folder / "small.yaml").write_text(yaml.safe_dump(options))
    return folder / "small.yaml"


def test_sweeps_and_recommends(small, tmp_path, capsys):
    argv = ["alpha", str(small), "--steps", "2", "--records", "12", "--points", "7", "--output", str(tmp_path / "out")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["alpha.json", "alpha.png"]
    report = json.loads((tmp_path / "out" / "alpha.json").read_text())
    assert report["argument"] == "alpha" and report["steps"] == 2 and report["records"] == 12
    points = report["points"]
    assert [point["snr_db"] for point in points] == pytest.approx([30 - 40 * i / 6 for i in range(7)])
    losses = [point["loss"] for point in points]
    assert losses == sorted(losses) and losses[-1] > report["clean_loss"] + 1
    assert 0 < report["low"] < report["pick"] < report["high"] < points[-1]["strength"]
    assert (
        report["advice"] == advice(SweepReport.from_dict(report))
        and report["advice"] in out
        and f"{report['pick']:.2g}" in out
    )


def test_equal_energy_is_picked_in_every_unit(small):
    uniform, gauss, relative = (
        find_alpha(str(small), name, 0, 12, 7) for name in ("neft_uniform", "neft_gaussian", "token_relative")
    )
    assert uniform.clean_loss == gauss.clean_loss
    # Uniform noise of one alpha has a third of the energy of Gaussian noise.
    assert uniform.pick / gauss.pick == pytest.approx(math.sqrt(3), rel=0.1)
    assert relative.argument == "rho" and relative.pick < 2


def test_a_loss_that_no_share_can_be_taken_of_is_refused(small, monkeypatch):
    monkeypatch.setattr(
        "neft_zoo.evaluation.strength_sweep.summary", lambda scores: replace(summary(scores), loss=0.0)
    )
    with pytest.raises(NoiseError, match="must be finite and above 0, got 0.0"):
        find_alpha(str(small), "neft_uniform", 0, 4, 3)


def test_a_strength_is_what_the_noise_is_proportional_to():
    found = {}
    for name in registry.builtin_names():
        try:
            found[name] = strength_of(make(name))
        except NoiseError as error:
            assert repr(name) in str(error)
    expected = dict.fromkeys("neft_uniform neft_gaussian neft_bernoulli neft_laplace neft_sphere".split(), "alpha")
    expected |= dict.fromkeys("neft_scheduled symnoise token_subspace".split(), "alpha")
    expected |= dict.fromkeys("token_relative token_frequency".split(), "rho") | {"r3f": "eps"}
    assert expected.items() <= found.items()
    assert not found.keys() & {
        *"none r_drop freelb fgm lat lnsr noisefit sam token_dropout embedding_dropout dx_laplace".split()
    }
    assert not found.keys() & {*"flat_lora noisy_tune embed_mix masked_thought cutoff_span hidden_cut".split()}


def test_a_quadratic_cost_is_read_exactly():
    points = [SweepPoint(a, snr_db=0.0, loss=0.0, excess=0.01 * a * a) for a in (1.0, 2.0, 4.0, 8.0)]
    for strength in (0.5, 3.0, 8.0):
        assert at_excess(points, 0.01 * strength**2) == pytest.approx(strength)
    assert at_excess(points, 1.0) is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--noise", "r_drop"], "proportional to one of its arguments, got 'r_drop'"),
        (["--noise", "neft_unifrom"], "did you mean neft_uniform"),
        (["--noise", "{name: neft_uniform, alpha: -1}"], "alpha must be a finite number >= 0, got -1"),
        (["--noise", "[1"], "noise must be a name or a mapping with a name, got '[1'"),
        (["--steps", "-1"], "steps must be a whole number >= 0, got -1"),
        (["--points", "2"], "points must be a whole number >= 3, got 2"),
        (["--records", "0"], "records must be a whole number >= 1, got 0"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(small, tmp_path, capsys, argv, message):
    assert main(["alpha", str(small), "--output", str(tmp_path / "out"), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("error:") == 1 and not (tmp_path / "out").exists()
