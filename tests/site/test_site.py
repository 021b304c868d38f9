"""What the site is made of: results, findings, formulas and the playground's strategies, without building it."""

import json
import re
from dataclasses import replace
from email.message import Message
from statistics import fmean

import made_up
import pytest
from made_up import DOCS

from neft_zoo import registry
from neft_zoo.compare import loading
from neft_zoo.compare.formats import number
from neft_zoo.compare.labels import label
from neft_zoo.compare.metrics import ROWS, metric, ordered
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.results import read
from neft_zoo.compare.summary import summarize
from neft_zoo.compare.tables import cell_of
from neft_zoo.registry.docstrings import prose

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import compare, data, entries, findings, formulas, overview, playground, snippets, wants, words  # noqa: E402
from builder.results import results_table  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_up.committed(tmp_path_factory.mktemp("site") / "results")


@pytest.fixture(scope="module")
def experiments(folder):
    return loading.load(folder)[0]


def test_experiments_are_told_apart_by_data_set_and_budget(folder):
    found, notes = loading.load(folder)
    assert [words.title(each) for each in found] == ["made-up", "made-up, equal compute"]
    assert [row.label for row in found[0].rows] == [
        "none",
        "lat",
        "neft_gaussian match_rms",
        "neft_uniform alpha=5",
        "neft_uniform alpha=10",
        "symnoise",
        "label_smoothing",
    ]
    assert len(notes) == 1 and "half, equal compute" in notes[0]


FOLDERS = ["gpu/dolly", "gpu/dolly-compute", "compute/gpu/dolly", "gpu/dolly_compute-matched"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_one_data_set(folder):
    assert loading.name_of(folder) == "gpu/dolly"


def test_numbers_are_those_of_a_report(folder, experiments):
    report = summarize({path: read(path) for path in (folder / "made-up").glob("*.json")})
    for row, line in zip(experiments[0].rows, report.rows, strict=True):
        assert (row.label, row.compute) == (line.label, line.compute)
        for point in ("end", "best"):
            cell, reported = (cell_of(each, ("test_loss", point)) for each in (row, line))
            assert cell.mean == reported.mean and cell.difference == reported.difference


def test_what_is_derived_and_what_comes_from_the_evaluation(experiments):
    row = experiments[0].find("neft_uniform", alpha=5)
    records = [record for _, record in row.runs]
    gaps = [record.end["test_loss"] - record.end["train_loss"] for record in records]
    assert row.cells["gap", "end"].mean == pytest.approx(fmean(gaps))
    assert row.cells["test_words", "end"].mean == pytest.approx(
        fmean(record.evaluation["test_words"] for record in records)
    )
    assert ("test_log_diversity", "end") not in row.cells, "null was measured by nobody"
    assert row.cells["best_epoch", "end"].mean == 1.0
    assert row.cells["wall_s", "end"].verdict is None, "what a run costs is not tested"
    assert row.cells["test_loss", "end"].verdict.word == "better"


def test_a_row_whose_runs_all_failed_has_no_numbers(experiments):
    row = experiments[0].find("lat")
    assert row.failed == 3 and row.cells == {}
    assert "3 of 3 runs failed" in compare.page(experiments, [])
    assert "3 of 3 runs of `lat` failed" in entries.measured("lat", experiments)


def test_metrics_nobody_described_are_shown_by_name():
    assert metric("odd_thing").label == "odd thing" and metric("odd_thing").better is None
    assert metric("end_blocked_words").label == "answer length, end blocked"
    assert metric("noise_5_loss").unit == "nats per token"
    names = ordered({"wall_s", "odd_thing", "test_loss", "test_words"})
    assert names == ["test_loss", "test_words", "odd_thing", "wall_s"]
    assert ordered(row.name for row in reversed(ROWS)) == [row.name for row in ROWS]


def test_without_results_every_page_says_not_run(tmp_path):
    found, notes = loading.load(tmp_path / "missing")
    assert found == [] and notes == []
    for text in (compare.page([], []), findings.page([]), entries.results("symnoise", []), overview.page([])):
        assert "not run" in text.lower()
    assert snippets.fill("{{ early_stopping }}\n\n{{ measured symnoise }}", []).lower().count("not run") == 2


def test_written_pages_ask_for_what_exists(experiments):
    for page in DOCS.rglob("*.md"):
        asked = [found[1] for found in snippets.ASKED.finditer(page.read_text(encoding="utf-8"))]
        assert set(asked) <= set(snippets.SNIPPETS), page
    with pytest.raises(KeyError):
        snippets.fill("{{ nonsense }}", experiments)


def test_written_pages_name_strategies_and_controls_that_exist():
    known = {
        "lengths",
        *registry.builtin_names(),
        *(path.stem for path in (DOCS.parent / "recipes/controls").glob("*.yaml")),
    }
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("choosing.md", "guides/overfitting.md"))
    asked = [found.partition(" on ") for found in re.findall(r"\{\{ measured (.+?) \}\}", text)]
    named = {name.rstrip("*") for names, _, _ in asked for name in names.split()}
    assert named and named <= known
    recipes = {path.stem for path in (DOCS.parent / "recipes/results").glob("*.yaml")}
    assert {name for _, _, where in asked for name in where.split()} <= recipes


def test_measured_shows_defaults_or_with_a_star_every_row(experiments):
    default = snippets.fill("{{ measured neft_uniform }}", experiments)
    assert "alpha=10" not in default and default.count(">end: better<") == 1
    assert "alpha=10" in snippets.fill("{{ measured neft_uniform* }}", experiments)
    assert "label_smoothing" in snippets.fill("{{ measured label_smoothing }}", experiments).replace("<wbr>", "")


def test_measured_shows_the_data_sets_that_are_asked_for(experiments):
    assert "symnoise" in snippets.fill("{{ measured symnoise on made-up }}", experiments)
    assert snippets.fill("{{ measured symnoise on gsm8k }}", experiments) == snippets.NOT_RUN


def test_labels_name_switches_that_are_on():
    rows = {
        key: {**made_up.record("neft_gaussian 5", 0, None), "row": key, "noise": noise}
        for key, noise in {
            "on": registry.make("neft_gaussian", alpha=5, match_rms=True).to_dict(),
            "off": registry.make("neft_gaussian", alpha=7).to_dict(),
        }.items()
    }
    named = label(map(RunRecord.from_dict, rows.values()))
    assert named == {"on": "neft_gaussian alpha=5 match_rms", "off": "neft_gaussian alpha=7"}


def test_evidence_is_sorted_by_verdict(experiments):
    text = entries.measured("neft_uniform", experiments)
    sides = [text.partition("**For**")[2].partition("**Neither**")[0], text.partition("**Neither**")[2]]
    assert (
        "test loss at the end, better: `neft_uniform alpha=5` −0.081 [−0.087, −0.076]; `neft_uniform alpha=10`"
        in sides[0]
    )
    assert "test loss at the best checkpoint, practically the same: `neft_uniform alpha=10`" in sides[1]


@pytest.mark.parametrize("name", registry.builtin_names())
def test_every_formula_becomes_mathml(name):
    text = formulas.render(prose(registry.entry(name)))
    assert "<math" in text and "$$" not in text and "\\" not in text[text.index("<math") : text.rindex("</math>")]


def test_formulas_in_code_stay():
    assert formulas.render("```\n$$x$$\n```\n`\\(y\\)`") == "```\n$$x$$\n```\n`\\(y\\)`"


def test_numbers():
    assert [number(-0.5, 2, typeset=True), number(-0.0001, 2, sign=True), number(None, 1)] == ["−0.50", "+0.00", "-"]


def test_the_playground_knows_every_closed_form():
    found = {each["label"]: each for each in playground.strategies()}
    assert {
        "neft_uniform",
        "symnoise",
        "token_relative",
        "neft_gaussian, energy of uniform noise",
        "r3f relative: true",
    } <= set(found)
    assert not {"lat", "freelb", "none", "masked_thought"} & set(found)
    assert found["neft_scheduled"]["default"] == 10 and found["token_relative"]["argument"] == "rho"


def test_a_page_sets_apart_what_speaks_for_and_against():
    text = entries.page("symnoise", [])
    published = text.partition("### Published")[2].partition("###")[0]
    assert "\n\n**For:** its authors" in published and "\n\n**Against:** we know" in published
    assert text.index('<div class="plots">') > text.index("$$"), "formula, then pictures"


def test_the_files_of_an_experiment_hold_the_numbers_of_its_report(experiments):
    made = data.files(experiments)
    told = json.loads(made["data/made-up-equal-steps.json"])
    for row, line in zip(experiments[0].rows, told["rows"], strict=True):
        for (name, when), cell in row.cells.items():
            written = line["cells"].get(f"{name}.{when}")
            if written is None:
                assert (name, when) not in experiments[0].columns
                continue
            assert written["mean"] == pytest.approx(cell.mean, rel=1e-4)
            if cell.difference is not None:
                assert written["diff"] == pytest.approx(cell.difference.mean, rel=1e-4, abs=1e-12)
                assert written.get("verdict") == (cell.verdict and cell.verdict.word)
    assert made["data/made-up-equal-steps.js"].startswith('window.neftLoaded("made-up-equal-steps", {')
    assert (
        made["data/results.csv"].count("\n")
        == sum(made[f"data/{each.key}.csv"].count("\n") - 1 for each in experiments) + 1
    )


def test_what_makes_a_comparison_unfair_is_on_its_page(experiments):
    unfair = replace(experiments[0], notes=["Runs differ in device: cpu; cuda. Compare again for a fair table."])
    said = ". Runs differ in device: cpu; cuda. Compare again for a fair table"
    assert data.described(unfair)["setting"].endswith(said) and f"{said}." in compare.section(unfair)


def test_the_short_table_has_a_row_for_each_idea(experiments):
    shown = [row.label for row in wants.short(experiments[0])]
    assert shown[0] == "none" and len(shown) <= wants.SHOWN and "neft_uniform alpha=5" in shown
    page = str(compare.section(experiments[0]))
    assert page.count("<tr") == len(shown) + 1
    cell = experiments[0].find("neft_uniform", alpha=5).cells["test_loss", "end"]
    assert number(cell.difference.mean, 3, sign=True, typeset=True) in page


def test_every_strategy_stands_in_one_group():
    names = [name for group in wants.grouped().values() for name in group]
    assert sorted(names) == sorted(registry.builtin_names())


def test_a_real_model_leads_as_soon_as_it_has_enough_rows(tmp_path):
    made_up.write(tmp_path / "dolly")
    model = {"model_name_or_path": "./build/smollm2"}
    for place, count in (("few", 2), ("smollm2", 5)):
        effects = dict(list(made_up.EFFECTS.items())[:count])
        for path in made_up.write(tmp_path / place, effects=effects).glob("*.json"):
            run = json.loads(path.read_text())
            path.write_text(
                json.dumps({**run, "config": {**run["config"], **model}, "recipe": {"name": place, "hash": place}})
            )
    found = loading.load(tmp_path)[0]
    assert wants.leading([each for each in found if each.name != "smollm2"]).name == "dolly"
    assert wants.leading(found).name == "smollm2" and "135 M parameters" in words.setting(wants.leading(found))


def test_a_baselines_line_is_of_the_seeds_beside_it(tmp_path):
    effects = {name: made_up.EFFECTS[name] for name in ("none", "neft_uniform 5", "symnoise")}
    folder = made_up.write(tmp_path / "r", 5, effects)
    for path in [*folder.glob("neft_uniform*-s[34].json"), *folder.glob("symnoise*-s4.json")]:
        path.unlink()
    none, noise, other = loading.load(tmp_path)[0][0].rows
    column = ("test_loss", "end")
    for rows, mean in (
        ([none, noise], noise.cells[column].baseline),
        ([none, noise, other], none.cells[column].mean),  # of different seeds
        ([none], none.cells[column].mean),
    ):
        shown = results_table(rows, [column], "A table")
        assert f"{mean:.3f}" in re.findall(r"<tr.*?</tr>", shown, re.DOTALL)[1]
    assert f"{noise.cells[column].baseline:.3f}" != f"{none.cells[column].mean:.3f}"


INTERNAL = ("dolly_often", "dolly_packed", "dolly_lora", "match_rms", "less none", "best point")


def test_no_internal_name_and_no_dialect_is_on_a_readers_page(experiments):
    pages = [overview.page(experiments), compare.page(experiments, []), findings.page(experiments)]
    named = ("log.md", "design.md", "support.md", "performance.md", "mutants.md")  # for developers
    written = [path for path in DOCS.rglob("*.md") if path.name not in named and "results" not in path.parts]
    pages += [re.sub(r"\{\{.*?\}\}", "", path.read_text(encoding="utf-8")) for path in written]
    assert [word for page in pages for word in INTERNAL if word in page] == []


def test_links_to_repository_and_source_come_from_the_package(monkeypatch):
    import hooks
    from mkdocs.config import load_config

    said = {"Repository": "https://host.invalid/neft-zoo", "Documentation": "https://docs.invalid/neft-zoo"}
    for urls, repository, site in ((said, said["Repository"], said["Documentation"] + "/"), ({}, None, None)):
        given = Message()
        for name, address in urls.items():
            given["Project-URL"] = f"{name}, {address}"
        monkeypatch.setattr(hooks, "metadata", lambda _, given=given: given)
        config = load_config(str(DOCS.parent / "mkdocs.yml"), plugins=[], hooks=[])
        hooks._take_addresses(config)
        assert (config["repo_url"] or None, config["site_url"] or None) == (repository, site)
        assert ("content.action.edit" in config["theme"]["features"]) == bool(urls)


def test_long_words_of_a_table_can_be_broken_and_short_ones_are_whole():
    from builder.cards import CardTables
    from markdown import markdown

    cells = "`f(x=1)` | **b** `tests/site/test_it.py::test_a[b]`"
    page = markdown(f"| a | b |\n| --- | --- |\n| {cells} |", extensions=["tables", CardTables()])
    assert '<td class="long"><strong>b</strong> <code>tests/site/' in page
    assert "<td><code>f(x=1)</code>" in page and "data-cards" not in page


def test_every_paper_has_a_claim_and_its_main_strategy_first(experiments):
    from builder import papers

    text = papers.page(experiments)
    neftune = text[text.index("{ #231005914 }") :].partition("\n## ")[0]
    assert "**Method.** [neft_uniform]" in neftune and "29.79 to 64.69" in neftune
    assert text.count("**Claim.** ") == text.count("**Here.** ") == text.count("**Method.** ")
    assert text.count(papers.NO_CLAIM) <= 1, "of dx_laplace, whose paper is about privacy"
    assert "3 seeds" in text, "what was run stands on the page"
