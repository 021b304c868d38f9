"""Reports, against numbers recomputed here, and what cannot be reported."""

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from reported import SEEDS, record, summarize

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.compare import results, summary
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.compare.formats import number
from neft_zoo.compare.grid import make_grid
from neft_zoo.compare.labels import label
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.tables import (
    cell_of,
    markdown,
    reference_rows,
    table,
    verdict_of,
)


def cells_of(experiment):
    """Return a table's cells by row and metric."""
    return {
        (row.label, f"{name} {when}"): cell_of(row, (name, when))
        for name, when in experiment.columns
        for row in experiment.rows
    }


@pytest.fixture
def folder(runs, tmp_path):
    made = tmp_path / "r"
    made.mkdir()
    for run in runs:
        results.write(results.path_of(made, run["noise"]["name"], run["row"], run["seed"]), RunRecord.from_dict(run))
    return made


def test_numbers_recomputed(runs):
    rows = list(csv.DictReader(io.StringIO(table(summarize(runs)))))
    raw = {}
    for row in rows:
        values, none = (
            np.array([run[row["when"]][row["metric"]] for run in runs if run["noise"]["name"] == name])
            for name in (row["row"], "none")
        )
        assert float(row["mean"]) == pytest.approx(values.mean())
        if row["row"] == "none":
            assert row["difference"] == row["p"] == "" and row["verdict"] == "-"
            continue
        gap = values - none
        error = gap.std(ddof=1) / np.sqrt(len(gap))
        assert float(row["difference"]) == pytest.approx(gap.mean())
        assert float(row["low"]) == pytest.approx(gap.mean() - 4.30265273 * error, rel=1e-6)
        assert float(row["high"]) == pytest.approx(gap.mean() + 4.30265273 * error, rel=1e-6)
        t = abs(gap.mean() / error)
        raw[row["row"], row["metric"], row["when"]] = 1 - t / np.sqrt(t * t + 2)  # two degrees of freedom
        assert float(row["p"]) == pytest.approx(raw[row["row"], row["metric"], row["when"]], rel=1e-4)
        cost = 2.0 if row["row"] == "symnoise" else 1.0
        assert float(row["compute"]) == float(row["time"]) == cost
        assert float(row["per_compute"]) == pytest.approx(gap.mean() / cost)
    for metric in ("test_loss", "train_loss"):  # a question each: both strategies are at their defaults
        question = {key: p for key, p in raw.items() if key[1] == metric}
        corrected, largest = {}, 0.0
        for rank, (key, p) in enumerate(sorted(question.items(), key=lambda item: item[1])):
            largest = corrected[key] = max(largest, min(1.0, p * (len(question) - rank)))
        for row in rows:
            key = row["row"], row["metric"], row["when"]
            if key in corrected:
                assert float(row["corrected_p"]) == pytest.approx(corrected[key], rel=1e-4)
                assert row["verdict"] not in ("better", "worse", "lower", "higher") or corrected[key] <= 0.05


def test_verdicts_and_order(runs):
    experiment = summarize(runs)
    told = {place: cell.verdict.word for place, cell in cells_of(experiment).items() if cell.verdict}
    assert told["neft_uniform", "test_loss end"] == "better"
    assert told["symnoise", "test_loss end"] == "worse"
    assert told["neft_uniform", "test_loss best"] in ("practically the same", "undecided")
    assert told["symnoise", "train_loss end"] == "higher", "a training loss is neither good nor bad"
    assert experiment.rows[0].label == "none"
    assert experiment.columns == [("test_loss", "end"), ("test_loss", "best"), ("train_loss", "end")]


def test_failed_and_missing_are_said_and_never_numbers(runs):
    runs[1] = record("neft_uniform", 0, 0, 0, 0, status="failed")
    del runs[4]["end"]["train_loss"]
    experiment = summarize(runs)
    row = next(row for row in experiment.rows if row.label == "neft_uniform")
    cell = row.cells["test_loss", "end"]
    assert cell.seeds == 2 and len(row.runs) == 3 and "(1 of 3 seeds failed)" in verdict_of(row, cell)
    cell = row.cells["train_loss", "end"]
    assert cell.seeds == 1 and cell.verdict.word == "one seed"
    runs[7] = record("neft_uniform", 2, 0, 0, 0, status="failed")
    text = markdown(summarize(runs))
    assert "neft_uniform, seed 0, failed: layers must be below 2, got 99." in text
    half = [record("none", seed, 4.5 + 0.01 * seed, 4.5, 2.9, share=0.5, steps=5, row="half") for seed in SEEDS]
    reference = reference_rows(find_reference(summarize(runs + half)))
    assert [line[-1] for line in reference if line[0] == "neft_uniform"] == [
        "undecided: one seed (2 of 3 seeds failed)"
    ]
    assert re.search(
        r"\| neft_uniform \| 0 of 3 \| - \| - \| - \| - \| - \| not measured \(2 of 3 seeds failed\)", text
    )
    assert "nan" not in text and "None" not in text


def test_a_page_corrects_for_what_it_shows_as_a_report_does(runs):
    records = {Path(f"{place}.json"): RunRecord.from_dict(run) for place, run in enumerate(runs)}
    report, page = summary.summarize(records), summary.summarize(records, included=lambda *column: True)
    assert ("gap", "end") in page.columns and ("train_loss", "best") in page.rows[1].cells
    for row, same in zip(report.rows[1:], page.rows[1:], strict=True):
        for column in report.columns:
            assert row.cells[column].verdict == same.cells[column].verdict, (row.label, column)


def test_a_share_of_nothing_in_both_does_not_repeat_the_baseline(runs):
    for seed in SEEDS:
        changes = dict(control="drop", overrides={"x": 1}, row="same")
        runs.append(record("none", seed, 4.63 + 0.02 * seed, 4.50, 2.3, **changes))
    cells = cells_of(summarize([run | {"evaluation": {"test_exact": 0.0}} for run in runs]))
    assert cells["drop", "test_exact end"].verdict.word == "identical"
    verdict = cells["neft_uniform", "test_exact end"].verdict
    assert verdict.word == "undecided" and verdict.p == 1.0, "its options do change something"


def test_a_difference_says_how_many_seeds_are_paired(runs):
    experiment = summarize([run for run in runs if (run["noise"]["name"], run["seed"]) != ("none", 0)])
    cell = next(row for row in experiment.rows if row.label == "neft_uniform").cells["test_loss", "end"]
    assert cell.seeds == 3 and cell.pairs == len(cell.difference.values) == 2
    assert "| neft_uniform | 3, 2 paired |" in markdown(experiment) and "| none | 2 |" in markdown(experiment)
    lines = list(csv.DictReader(io.StringIO(table(experiment))))
    assert [line["pairs"] for line in lines[:2]] == ["2", "2"] and lines[1]["seeds"] == "3"


def test_other_test_records_are_said(runs):
    for run in runs:
        run["record_losses"] = {"tokens": [10] * 4, "end": [4.6] * 4, "best": [4.6] * 4}
    assert not any("Runs differ" in note for note in summarize(runs).notes)
    runs[1]["record_losses"] = {"tokens": [10] * 3, "end": [4.6] * 3, "best": [4.6] * 3}
    assert any("Runs differ in test records" in note for note in summarize(runs).notes)


def test_noise_that_is_not_compared_with_shorter_training_is_said(runs):
    (note,) = summarize(runs).notes
    assert "stopping earlier may do as well as noise: compare with --lengths 1/4,1/2" in note
    shorter = [record("none", seed, 4.4, 4.4, 2.5, share=0.5, steps=5, row="half") for seed in SEEDS]
    assert not summarize(runs + shorter).notes
    assert not summarize([run for run in runs if run["noise"]["name"] == "none"]).notes


def test_a_loss_that_repeats_in_every_digit_is_no_test_and_a_share_that_does_may_be_one(runs):
    for run in runs:
        run["evaluation"] = {"train_exact": 0.0}
        run["end"]["train_loss"] = run["history"][-1]["train_loss"] = 2.3 + 0.01 * run["seed"] * run["passes"]
    experiment = summarize(runs)
    row = next(row for row in experiment.rows if row.label == "neft_uniform")
    words = {name: row.cells[name, "end"].verdict.word for name in ("test_loss", "train_loss", "train_exact")}
    assert words == {"test_loss": "better", "train_loss": "identical", "train_exact": "undecided"}
    other = next(row for row in experiment.rows if row.label == "symnoise").cells["train_loss", "end"]
    assert other.verdict.p == other.difference.p, "not corrected for what is no test"


def test_a_recipe_states_margins(runs, tmp_path):
    wide = [{**run, "margins": {"test_loss": 0.3}} for run in runs]
    words = {
        cell.verdict.word for (_, name), cell in cells_of(summarize(wide)).items() if cell.verdict and "test" in name
    }
    assert words == {"practically the same"}
    recipe = tmp_path / "r.yaml"
    for written in ("0.02", "2e-2"):
        recipe.write_text(f"extends: quickstart\nmargins: {{test_loss: {written}}}\n")
        assert make_grid(str(recipe)).margins == {"test_loss": 0.02}
    plain = make_grid("quickstart")
    assert fingerprint(make_grid(str(recipe)).settings) == fingerprint(plain.settings), "results stay valid"
    for wrong in ("{test_loss: -1}", "{tset_loss_: 1}", "0.02", "{test_loss: yes}", "{test_loss: low}"):
        recipe.write_text(f"extends: quickstart\nmargins: {wrong}\n")
        with pytest.raises(NoiseError, match="margins must map metrics"):
            make_grid(str(recipe))
    recipe.write_text("extends: quickstart\nmargins: {tset_loss: 0.02}\n")
    with pytest.raises(NoiseError, match="got 'tset_loss'; did you mean test_loss"):
        make_grid(str(recipe))
    measured = ("test_accuracy", "nf4_loss", "noise_15_loss", "replaced_tokens_0.1_loss", "template_headed_loss")
    recipe.write_text(f"extends: quickstart\nmargins: {{{', '.join(f'{name}: 1' for name in measured)}}}\n")
    assert make_grid(str(recipe)).margins.keys() == {*measured}


def test_an_interval_over_records_stands_beside_that_over_seeds(runs):
    random = np.random.default_rng(3)
    for run in runs:
        shifts = {"none": 0.0, "neft_uniform": -0.08, "symnoise": 0.07}
        losses = 4.63 + shifts[run["noise"]["name"]] + 0.1 * random.standard_normal(64)
        run["record_losses"] = {"tokens": [10] * 64, "end": losses.tolist(), "best": losses.tolist()}
    experiment = summarize(runs)
    for when in ("end", "best"):
        each = next(row for row in experiment.rows if row.label == "symnoise").cells["test_loss", when].difference
        assert each.over_records and each.over_records[0] < 0.07 < each.over_records[1]
    text = markdown(experiment)
    assert (
        "3 seeds, 64 test records in every run. Intervals are over seeds, and over these and the test records" in text
    )
    assert re.search(r"\| \+0\.0\d+ to \+0\.0\d+ \(over records too: \+0\.0\d+ to \+0\.\d+\) \|", text)
    assert "over records too" not in text.partition("## Train loss")[2].partition("Losses are")[0]
    lines = list(csv.DictReader(io.StringIO(table(experiment))))
    assert float(lines[2]["records_low"]) < float(lines[2]["records_high"]) and lines[-1]["records_low"] == ""


def test_rows_are_named_by_what_differs():
    rows = [record("neft_uniform", 0, 1, 1, 1, row=str(a)) for a in (5.0, 10.0)] + [record("none", 0, 1, 1, 1)]
    for row, alpha in zip(rows, (5.0, 10.0), strict=False):
        row["noise"] |= {"alpha": alpha, "where": "real"}
    rows[1]["version"] = 2
    rows.append(record("none", 0, 1, 1, 1, control="label_smoothing", row="control"))
    named = label(map(RunRecord.from_dict, rows))
    assert [named["5.0"], named["10.0"], named["control"], named["row-none"]] == [
        "neft_uniform alpha=5 version 1",
        "neft_uniform alpha=10 version 2",
        "label_smoothing",
        "none",
    ]


def test_a_control_of_one_option_is_named_by_its_value():
    rows = [
        record("none", 0, 1, 1, 1, control="weight_decay", row=str(value), overrides={"weight_decay": value})
        for value in (0.01, 0.1)
    ]
    assert list(label(map(RunRecord.from_dict, rows)).values()) == ["weight_decay=0.01", "weight_decay=0.1"]


def test_an_argument_that_is_not_the_default_is_named():
    def named(noise, **more):
        return list(label([RunRecord.from_dict(record("x", 0, 1, 1, 1, noise=noise, **more))]).values())

    assert named({"name": "neft_uniform", "alpha": 15.0}) == ["neft_uniform alpha=15"]
    assert named({"name": "neft_uniform", "alpha": 5.0}) == ["neft_uniform"]
    assert named({"name": "vat", "start": 9.0}, version=1) == ["vat"], "another version had other defaults"
    assert named({"name": "of a package that is not here", "alpha": 3.0}) == ["of a package that is not here"]


def test_markdown_is_aligned(runs):
    text = markdown(summarize(runs))
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1 and text.count("## ") == 3 and "+0.0000" not in text.split("##")[1].splitlines()[4]


def test_html_stands_alone(folder, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", str(folder), "--format", "html"]) == 0
    path = folder / "report.html"
    assert capsys.readouterr().out.strip() == str(path)
    text = path.read_text()
    addresses = set(re.findall(r"""(?:href|src)=["']([^"'#]+)""", text))
    assert not addresses and "@import" not in text and "<script" not in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "neft_uniform (3 seeds)" in drawings[0] and "<td>better</td>" in text
    main(["report", str(folder), "--format", "html", "--output", str(folder / "again.html")])
    assert (folder / "again.html").read_text() == text, "the same results give the same page"


def test_a_panel_shows_none_at_the_rows_own_seeds(runs):
    pytest.importorskip("matplotlib")
    from neft_zoo.compare.html import html
    from neft_zoo.compare.plots import by_seed, draw_curves

    runs[1] = record("neft_uniform", 0, 0, 0, 0, status="failed")
    runs += [record(name, 0, 4.6, 4.5, 2.3) for name in ("fgm", "hype", "pdr", "vat")]
    rows = summarize(runs).rows
    figure = draw_curves({row.label: by_seed(row.records, "test_loss") for row in rows}, "test loss")
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert {"neft_uniform (2 seeds)", "symnoise (3 seeds)", "fgm (1 seed)"} <= panels.keys() and len(panels) == 6
    gray, *_ = panels["neft_uniform (2 seeds)"].lines
    assert list(gray.get_ydata()) == pytest.approx([4.5, 4.63 + 0.02 * 1.5])
    assert list(panels["fgm (1 seed)"].lines[0].get_ydata()) == pytest.approx([4.5, 4.63]), "of seed 0 alone"
    text = html(summarize(runs))
    targets = re.findall(r'<h2 id="([^"]+)"', text)
    links = re.findall(r'href="#([^"]+)"', text.partition("<nav>")[2].partition("</nav>")[0])
    assert targets == links == ["test_loss-end", "test_loss-best", "train_loss-end"]
    only = [run for run in runs if run["noise"]["name"] == "none"]
    assert "none (3 seeds)" in html(summarize(only))


def test_a_difference_that_rounds_to_nothing_has_no_minus():
    assert number(-0.00001, 4, sign=True) == "+0.0000" and number(-0.00005001, 4, sign=True) == "-0.0001"
    assert number(None, 2) == "-" and number(0.0, 2) == "0.00" and number(1234.5, 1, typeset=True) == "1,234.5"


def test_formats_and_output(folder, capsys):
    assert main(["report", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# r: strategies against `none`")
    assert main(["report", str(folder), "--output", str(folder / "r.md")]) == 0
    assert (folder / "r.md").read_text() == shown
    assert capsys.readouterr().out.strip() == str(folder / "r.md")
    assert main(["report", str(folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("r,none,test_loss,end,3,3,4.6")


def damage(folder):
    path = sorted(folder.glob("*.json"))[0]
    path.write_text(path.read_text()[:100])
    return f"{path} must hold the result of a run, but it is damaged"


def mix(folder):
    path = sorted(folder.glob("*.json"))[-1]
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"recipe": {"name": "r", "hash": "other"}, "config": {"learning_rate": 2}}))
    return "must hold results of one recipe, got different ones (learning_rate 1 and 2)"


def take_none(folder):
    for path in folder.glob("none-*"):
        path.unlink()
    return "results must hold runs of none"


def take_all(folder):
    for path in folder.glob("*.json"):
        path.unlink()
    return "the folder must hold results of neft-zoo compare"


def copy_one(folder):
    path = sorted(folder.glob("*.json"))[0]
    (folder / "copy.json").write_text(path.read_text())
    return f"{folder} must hold one result of a row and seed, got copy.json and {path.name}."


def something_else(folder):
    (folder / "a.json").write_text('{"a": 1}')
    return "must hold the result of a run in format 1"


@pytest.mark.parametrize("spoil", [damage, mix, take_none, take_all, copy_one, something_else])
def test_what_cannot_be_reported(folder, capsys, spoil):
    message = spoil(folder)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_the_folder_above_names_those_with_results(folder, capsys):
    assert main(["report", str(folder.parent)]) == 2
    assert f"did you mean {folder}?" in capsys.readouterr().err
    assert main(["report", str(folder), "--output", str(folder / "no" / "r.md")]) == 2
