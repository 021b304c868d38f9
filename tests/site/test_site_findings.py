"""What the site says of results by rule: findings, counts, the sweep over alpha."""

import re
from dataclasses import replace

import made_up
import pytest
from made_up import EFFECTS

from neft_zoo import registry
from neft_zoo.compare import loading
from neft_zoo.compare.plots import forest
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.results import read, write
from neft_zoo.compare.verdicts import Verdict

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import chooser_evidence, compare, entries, findings, front, results, snippets, sweep, tallies, words  # noqa: E402
from builder.tables import could_have_been_seen  # noqa: E402


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    return loading.load(made_up.committed(tmp_path_factory.mktemp("site") / "results"))[0]


def test_the_rule_of_the_findings(experiments):
    said = {claim.title: findings.judge(claim, experiments[0]).status for claim in findings.CLAIMS}
    assert said["Train loss goes up"] == findings.YES
    assert said["Held-out loss goes down"] == findings.YES
    # Practically the same where the paper has a difference is no less a contradiction than the opposite.
    assert said["Outputs get longer"] == findings.NO
    assert said["Repetition stays the same"] == findings.YES
    assert said["Uniform noise beats Gaussian noise of equal energy"] == findings.NO


def judged(tmp_path, title, changes=None, without="", **more):
    effects = {name: effect for name, effect in {**EFFECTS, **(changes or {})}.items() if name != without}
    found, _ = loading.load(made_up.write(tmp_path / "results/r", effects=effects, **more).parent)
    claim = next(claim for claim in findings.CLAIMS if claim.title.startswith(title))
    return findings.judge(claim, found[0])


def test_better_at_the_end_only_is_contradicted(tmp_path):
    judgement = judged(tmp_path, "Held-out", {"neft_uniform 5": (-0.08, 0.02, 0.2, 0.0)})
    assert judgement.status == findings.NO
    assert judgement.why == "at the end lower; at the best checkpoint higher"


def test_what_the_seeds_cannot_show_is_undecided_and_says_what_they_could(tmp_path):
    judgement = judged(tmp_path, "Held-out", {"neft_uniform 5": (-0.08, -0.009, 0.2, 0.0)})
    assert judgement.status == findings.UNKNOWN
    assert re.fullmatch(
        r"at the end lower; at the best checkpoint undecided \(±0\.\d{3} would have been seen\)", judgement.why
    )


def test_lengths_of_cut_answers_contradict_nothing(tmp_path):
    assert judged(tmp_path / "all_end", "Outputs").status == findings.NO
    folder = made_up.write(tmp_path / "cut" / "r")
    for path in folder.glob("none-*.json"):
        record = read(path)
        record.evaluation["test_unended"] = 0.25
        write(path, record)
    claim = next(claim for claim in findings.CLAIMS if claim.name == "test_words")
    judgement = findings.judge(claim, loading.load(folder.parent)[0][0])
    assert judgement.status == findings.UNKNOWN
    assert judgement.why.endswith(
        "25% of `none`'s answers are truncated, so equal lengths do not contradict longer answers"
    )


def test_train_loss_is_judged_at_the_end_alone(tmp_path):
    judgement = judged(tmp_path, "Train loss")
    assert judgement.status == findings.YES and list(judgement.differences) == ["end"]
    assert "best checkpoints lie at different epochs" in judgement.why


def test_a_finding_shows_its_interval_and_what_was_not_run(tmp_path, experiments):
    table = findings.summary(experiments)
    assert "best −0.022 <span" in table and 'end −0.081 <span class="whole">[−0.087, −0.076]' in table
    assert "[" not in findings.summary(experiments, intervals=False)
    assert judged(tmp_path, "Uniform", {"neft_gaussian 5": None}).status == findings.UNKNOWN
    found, _ = loading.load(made_up.write(tmp_path / "few/r", effects={"none": EFFECTS["none"]}).parent)
    assert {findings.judge(claim, found[0]).status for claim in findings.CLAIMS} == {findings.MISSING}


def test_energies_that_were_compared_at_the_papers_alpha_alone_count(tmp_path):
    at_15 = {"neft_uniform 15": (-0.08, -0.03, 0.2, 0.0), "neft_gaussian 15": (0.0, 0.0, 0.0, 0.0)}
    judgement = judged(tmp_path, "Uniform", at_15, without="neft_gaussian 5")
    assert (judgement.status, judgement.alpha) == (findings.YES, findings.PAPERS)
    assert judgement.why.startswith("at alpha 15; at the end lower")
    assert judged(tmp_path / "both", "Uniform", at_15).alpha == findings.ALPHA


def test_two_seeds_are_too_few(tmp_path):
    assert judged(tmp_path, "Held-out", seeds=2).status == findings.UNKNOWN


def test_what_was_not_measured_is_not_testable(tmp_path):
    judgement = judged(tmp_path, "Outputs", answers=False)
    assert judgement.status == findings.UNKNOWN and "not measured" in judgement.why


def test_nothing_learned_by_heart_cannot_be_unlearned(tmp_path):
    floor = {name: effect and (*effect[:3], effect[3] - 0.2) for name, effect in EFFECTS.items()}
    assert judged(tmp_path, "Answers repeat training answers less (ROUGE-L)", floor).status == findings.UNKNOWN


def test_strategies_are_counted_by_corrected_verdicts(experiments):
    assert tallies.tally(experiments) == (
        "* **made-up**, 2 strategies against `none`: at the end 2 (`neft_uniform`, `symnoise`) better, 0 worse, "
        "0 practically the same, 0 undecided; at the best checkpoint 1 (`neft_uniform`) better, 1 (`symnoise`) worse, "
        "0 practically the same, 0 undecided. Not counted, with fewer than 3 seeds: `lat`."
    )


def test_defaults_that_do_nothing_are_found(tmp_path, experiments):
    assert tallies.unchanged(experiments) == "* **made-up**: none of them."
    (tmp_path / "r").mkdir()
    records = [made_up.record("none", seed, EFFECTS["none"]) for seed in range(3)]
    for record in records:
        twin = {**record, "noise": registry.make("r3f").to_dict(), "row": "row r3f", "passes": 2}
        twin["end"] = {**record["end"], "test_loss": record["end"]["test_loss"] + 2e-8 * (1 + record["seed"])}
        for each in (record, twin):
            write(tmp_path / "r" / f"{each['row']} {each['seed']}.json", RunRecord.from_dict(each))
    found = loading.load(tmp_path)[0]
    assert tallies.unchanged(found) == "* **r**: `r3f`."
    assert "1e" not in "".join(re.findall(r">([^<]*)</text>", forest(found[0], ("test_loss", "end"))))
    assert snippets.fill("{{ unchanged }}", []) == snippets.NOT_RUN


def repeated(folder, is_same_run):
    """Return an experiment without repeated 2-grams, whose strategy repeats plain training or does not."""
    folder.mkdir(parents=True)
    for seed in range(3):
        plain, noisy = (made_up.record(name, seed, EFFECTS[name]) for name in ("none", "neft_uniform 5"))
        for run in (plain, noisy):
            run["evaluation"]["test_repetition_2"] = 0.0
        noisy |= {name: plain[name] for name in ("history", "end", "best") if is_same_run}
        for run in (plain, noisy):
            write(folder / f"{run['row']} {seed}.json", RunRecord.from_dict(run))
    return loading.load(folder.parent)[0][0]


def test_equal_values_are_the_same_only_by_the_verdict(tmp_path):
    repetition = next(claim for claim in findings.CLAIMS if claim.name == "test_repetition_2")
    loss = next(claim for claim in findings.CLAIMS if claim.name == "test_loss")
    differing = repeated(tmp_path / "differing" / "r", is_same_run=False)
    (row,) = differing.rows[1:]
    judgement = findings.judge(repetition, differing)
    assert judgement.verdicts["end"] == row.cells["test_repetition_2", "end"].verdict, "as in a report"
    assert (judgement.status, judgement.why.partition(";")[0]) == (findings.UNKNOWN, "at the end undecided")
    same = repeated(tmp_path / "same" / "r", is_same_run=True)
    for claim in (repetition, loss):
        judgement = findings.judge(claim, same)
        assert judgement.status == findings.UNKNOWN and "at the end identical: not a test" in judgement.why
    assert "identical: not a test" in findings.summary([same])
    assert tallies.unchanged([same]) == "* **r**: none of them.", "which is another fault than a weak noise"


def test_failed_runs_are_said_wherever_a_row_is_judged(tmp_path):
    folder = made_up.write(tmp_path / "results/r", seeds=4)
    made_up_failed = made_up.record("neft_uniform 5", 3, None)
    (path,) = (path for path in folder.glob("neft_uniform*-s3.json") if read(path).noise["alpha"] == 5)
    write(path, RunRecord.from_dict(made_up_failed))
    found, _ = loading.load(folder.parent)
    row = found[0].find("neft_uniform")
    claim = next(claim for claim in findings.CLAIMS if claim.name == "test_loss")
    assert chooser_evidence.said(row).endswith("(1 of 4 seeds failed)")
    texts = [findings.summary(found), findings.detail(claim, found[0])]
    texts += [tallies.tally(found), front.early_verdict(found[0])]
    assert all("(1 of 4 seeds failed)" in text for text in texts)


def test_the_sweep_draws_a_line_per_distribution_and_point(experiments):
    drawn = sweep.figures(experiments)
    assert drawn.count("<figure") == 2 and drawn.count(">Gaussian of equal energy<") == 2
    assert ">Gaussian<" not in drawn, "Gaussian noise at equal alpha was not run"
    assert [alpha for alpha, _ in sweep.points(experiments[0], "neft_uniform", {}, "end")] == [5, 10]
    assert sweep.figures(experiments[1:]) == "", "only alpha's default was run"


def test_pages_hold_rows_against_the_best_plain_run_of_any_length(tmp_path):
    folder = made_up.write(tmp_path / "results" / "r", effects={name: EFFECTS[name] for name in ("none", "symnoise")})
    experiment = loading.load(folder.parent)[0][0]
    assert results.against_plain(experiment, experiment.rows) == "", "one length"
    for seed in range(3):
        short = made_up.record("none", seed, (-0.2, -0.1, 0.0, 0.0)) | {"row": "short", "share": 0.5, "steps": 5}
        write(folder / f"none-short-s{seed}.json", RunRecord.from_dict(short))
    found, notes = loading.load(folder.parent)
    text = results.against_plain(found[0], found[0].rows)
    assert re.search(r"none, 1/2 of the steps: test loss 4\.\d+ at the end of training, chosen and measured on", text)
    assert re.search(r"Minus that: symnoise \+0\.1\d+ \[\+0\.1\d+, \+0\.1\d+\], worse\.$", text)
    assert text in entries.results("symnoise", found) and text in compare.page(found, notes)


def test_settings_of_one_data_set_are_not_several(experiments):
    packed = replace(experiments[0], config={**experiments[0].config, "packing": True})
    assert words.same_data([*experiments, packed]) == (
        "One data set in 2 settings, not 2 data sets: made-up; made-up, packed."
    )
    assert words.same_data(experiments) == "", "a budget is no setting of its own"


def test_undecided_says_what_would_have_been_seen_on_every_page(tmp_path):
    effects = {**EFFECTS, "neft_uniform 5": (-0.08, -0.009, 0.2, 0.0)}
    found, _ = loading.load(made_up.write(tmp_path / "results/r", effects=effects).parent)
    seen = r"undecided \(±0\.\d{3} would have been seen\)"
    for text in (findings.summary(found), tallies.tally(found), entries.measured("neft_uniform", found)):
        assert re.search(seen, text)
    several = [Verdict("undecided", 0.2, visible) for visible in (0.004, None, 0.118)]
    assert could_have_been_seen(several, "undecided") == " (±0.004 to ±0.118 would have been seen)"
    assert re.search(seen, compare.page(found, []))
