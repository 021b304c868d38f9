"""Comparisons as a user runs them: what is trained, what is kept, what is done again."""

import json
import shlex
import signal
import subprocess
import sys
import time
from statistics import fmean

import pytest
import torch
import trl
import yaml
from selection import quick
from warm import started_command

from neft_zoo import registry
from neft_zoo.cli.main import main
from neft_zoo.compare import results
from neft_zoo.compare import worker as training
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.compare.grid import make_grid
from neft_zoo.compare.measured_trainer import MeasuredTrainer
from neft_zoo.compare.measures import measure
from neft_zoo.compare.metrics import HALVES
from neft_zoo.compare.planning import tasks
from neft_zoo.compare.progress import left_text
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.results import read_folder
from neft_zoo.compare.summary import summarize
from neft_zoo.config import recipe
from neft_zoo.errors import NoiseError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a recipe: 3 steps of 4 records on a two-layer Llama with dropout, measured twice."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder, shipped = tmp_path_factory.mktemp("tiny"), recipe.folder() / "quickstart"
    tokenizer = AutoTokenizer.from_pretrained(shipped / "model")
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tokenizer), attention_dropout=0.1, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    for split, count in (("train", 16), ("test", 8)):
        lines = (shipped / "data" / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "data" / f"{split}.jsonl").write_text("".join(lines[:count]))
    options = dict(extends="quickstart", max_steps=3, per_device_train_batch_size=4, warmup_steps=0, max_length=48)
    options |= dict(model_name_or_path=str(folder / "model"), dataset_name=str(folder / "data"))
    options |= dict(eval_strategy="steps", eval_steps=2, logging_steps=1, lr_scheduler_type="constant")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(options))
    return folder / "tiny.yaml"


def read(folder):
    """Return the results of a folder by file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted((folder / "tiny").glob("*.json"))}


def compare(tiny, output, *argv):
    return main(["compare", str(tiny), "--output", str(output), "--lengths", "1", *argv])


@pytest.fixture(scope="module")
def grid(tiny, tmp_path_factory):
    """Return a folder with none, two noises, an alpha of 0 and a strategy that cannot work, at two seeds."""
    output = tmp_path_factory.mktemp("grid")
    sets = ["--set", "lat.layers=[99]", "--set", "neft_uniform.alpha=0,5", "--set", "symnoise.alpha=0"]
    status = compare(tiny, output, "--strategies", "neft_uniform,symnoise,lat", "--seeds", "2", *sets)
    assert status == 0
    return output


def test_a_record_holds_the_command_that_made_it(monkeypatch):
    asked = ["compare", "quickstart", "--set", "neft_*.alpha=1, 5"]
    for called in ("/bin/neft-zoo", "/lib/neft_zoo/__main__.py"):
        monkeypatch.setattr("sys.argv", [called, *asked])
        assert shlex.split(results.surroundings()["command"]) == ["neft-zoo", *asked]


def losses(run):
    return run["training_loss"], [(point["train_loss"], point["test_loss"]) for point in run["history"]]


def test_a_failing_strategy_does_not_stop_the_grid(grid):
    runs = read(grid).values()
    assert len(runs) == 10
    failed = [run for run in runs if run["status"] == "failed"]
    assert [run["noise"]["name"] for run in failed] == ["lat", "lat"]
    assert all("99" in run["error"] and "end" not in run for run in failed)
    assert not list((grid / "tiny").glob("*.partial")) and not list((grid / "tiny").glob("*none*.log"))


def test_alpha_zero_is_none_at_every_seed(grid):
    runs = [run for run in read(grid).values() if run["status"] == "ok"]
    for seed in (0, 1):
        at = {(run["noise"]["name"], run["noise"].get("alpha")): losses(run) for run in runs if run["seed"] == seed}
        assert at["none", None][0] == at["neft_uniform", 0.0][0], "training is the same bit for bit"
        for name in ("neft_uniform", "symnoise"):  # the mean of two equal passes adds its gradients in another order
            for one, two in zip(at["none", None], at[name, 0.0], strict=True):
                assert [list(map(float, pair)) for pair in one] == [pytest.approx(pair, rel=1e-5) for pair in two]
        assert at["none", None] != at["neft_uniform", 5.0]
    by_seed = [losses(run) for run in runs if run["noise"]["name"] == "none"]
    assert by_seed[0] != by_seed[1], "seeds train on other batches"


def watched(task):
    """Do a run here; return batch and random state at every look into the embedding table while training."""
    seen, tables = [], []

    def look(module, args):
        if isinstance(module, torch.nn.Embedding) and module.training:
            tables.append(module)
            seen.append((args[0].tolist(), torch.get_rng_state().numpy().tobytes()))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        training._train(task, None)
    finally:
        handle.remove()
    assert len({id(each) for each in tables}) == 1, "the tiny model looks tokens up in one table"
    return seen


def test_rows_of_a_seed_see_the_same_batches_and_dropout_masks(tiny, tmp_path):
    """Dropout is drawn from the random state in which a pass begins; noise must leave it where it found it."""
    (tmp_path / "twice.yaml").write_text(f"extends: {tiny}\nmax_steps: -1\nnum_train_epochs: 2\neval_steps: 3\n")
    names = ["neft_uniform", "symnoise", "vat", "r_drop"]
    grid = make_grid(str(tmp_path / "twice.yaml"), names, 2)
    made = {(t.record.noise["name"], t.record.seed): t for t in tasks(grid, tmp_path / "out")}
    none = watched(made["none", 0])
    assert len(none) == 8 and len({state for _, state in none}) == 8, "every step draws its own masks"
    assert none[:4] != none[4:], "the second epoch has an order of its own"
    assert watched(made["none", 1])[0] != none[0]
    for name in names:
        seen, passes = watched(made[name, 0]), made[name, 0].record.passes
        assert len(seen) == 8 * passes
        assert [ids for ids, _ in seen[::passes]] == [ids for ids, _ in none], "the same records in the same order"
        if name == "r_drop":  # two masks a step are its idea
            assert seen[0] == none[0] and seen[1][1] != seen[0][1]
        else:
            assert all(seen[i::passes] == none for i in range(passes)), name


def test_the_time_that_is_left_counts_passes():
    assert left_text(60.0, 2.0, 4.0) == "1 min left" and left_text(10.0, 2.0, 4.0) == "10 s left"
    assert left_text(3600.0, 1.0, 4.0) == "3.0 h left" and left_text(600.0, 4.0, 4.0) == "0 s left"
    assert left_text(600.0, 0.0, 4.0) == "time left unknown", "all runs so far have failed"
    assert left_text(600.0, 0.0, 0.0) == "0 s left", "all runs have failed"


def test_a_record_holds_what_is_needed_to_read_it_later(grid):
    runs = [run for run in read(grid).values() if run["status"] == "ok"]
    for run in runs:
        assert [point["step"] for point in run["history"]] == [2, 3], "the end is measured where no evaluation falls"
        assert run["end"] == run["history"][-1]
        assert run["best"] == min(run["history"], key=lambda point: point["test_loss"])
        assert run["passes"] == registry.make(run["noise"]).objective.passes and run["steps"] == 3
        assert run["version"] == registry.entry(run["noise"]["name"]).version and run["device"] == "cpu"
        assert run["wall_s"] > 0 and run["measuring_s"] > 0
        assert run["peak_memory_mb"] > 50 and "torch" in run["versions"] and "commit" in run
        assert run["command"]
    assert len({run["tokens"] for run in runs if run["seed"] == 0}) == 1, "a token counts once, however many passes"


def test_losses_are_measured_with_the_noise_off(llama, config, records, tokenizer):
    """In the middle of training: the tap is set and the model in train mode, with dropout."""
    eight = records.select(range(8))
    settings = dict(args=config(per_device_eval_batch_size=8), train_dataset=records, processing_class=tokenizer)
    loud = {"name": "neft_uniform", "alpha": 300}
    plain = trl.SFTTrainer(llama(), eval_dataset=eight, **settings)
    settings |= dict(eval_dataset={"test": eight}, record={"history": []})
    noisy = MeasuredTrainer(llama(attention_dropout=0.3), noise=loud, **settings)
    noisy.session.attach()
    noisy.model.train()
    found = measure(noisy)
    assert noisy.model.training
    assert {name: found[name] for name in found if name not in HALVES} == {
        "test_loss": pytest.approx(plain.evaluate()["eval_loss"])
    }


def test_only_what_is_missing_runs(grid, tiny, capsys):
    files = sorted((grid / "tiny").glob("*.json"))
    times = {path: path.stat().st_mtime_ns for path in files}
    removed = next(path for path in files if path.name.startswith("neft_uniform"))
    removed.unlink()
    alpha = ["--set", "neft_uniform.alpha=0,5"]
    assert compare(tiny, grid, "--strategies", "neft_uniform", "--seeds", "2", *alpha) == 0
    assert "6 runs, 5 of them done already." in capsys.readouterr().err
    changed = [path for path in files if path.stat().st_mtime_ns != times[path]]
    assert changed == [removed]
    assert main(["report", str(grid / "tiny")]) == 0
    out = capsys.readouterr().out
    assert "| neft_uniform alpha=5 | 2 |" in out and "lat layers=[99], seed 0, failed: " in out
    assert (
        "| neft_uniform alpha=0 | 2 |" in out and "+0.0000 | +0.0000 to +0.0000 | 1.000 | identical: not a test" in out
    )


def test_killed_in_the_middle_it_loses_the_run_in_flight_only(tiny, tmp_path):
    argv = ["--strategies", "neft_uniform", "--seeds", "1"]
    process, said = started_command(["compare", str(tiny), *argv, "--output", str(tmp_path)])
    while len(list((tmp_path / "tiny").glob("*.json"))) < 1 and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    said.close()
    assert process.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").glob("*.json")}
    assert before and all(run["status"] == "ok" for run in read(tmp_path).values())
    assert compare(tiny, tmp_path, *argv) == 0
    assert len(read(tmp_path)) == 2
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


@pytest.mark.parametrize("peft", quick([False, True], True), ids=["full", "lora"])
def test_a_kept_model_is_evaluated_without_training(tiny, tmp_path, peft, capsys):
    values = yaml.safe_load(tiny.read_text())
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**values, "use_peft": True, "lora_r": 2} if peft else values))
    kept = ["--seeds", "1", "--keep-models", str(tmp_path / "models")]
    evaluate = ["--evaluate", "records: 4, parts: [losses]"]
    assert compare(recipe, tmp_path / "first", "--strategies", "neft_uniform", *kept) == 0
    assert compare(recipe, tmp_path / "later", "--strategies", "neft_uniform", *kept, *evaluate) == 0
    assert compare(recipe, tmp_path / "at_once", "--strategies", "neft_uniform", "--seeds", "1", *evaluate) == 0
    first, later, at_once = (read(tmp_path / name) for name in ("first", "later", "at_once"))
    own = {"cpu_s", "wall_s", "measuring_s", "command", "peak_memory_mb"}
    for name, run in later.items():
        assert run["cpu_s"] == first[name]["cpu_s"] and run["status"] == "ok", "the time is that of the training"
        for key in run.keys() - own:
            assert run[key] == at_once[name][key], key
    assert set(later) == set(first) and all("evaluation" not in run for run in first.values())


def test_the_losses_of_test_records_are_kept(grid):
    for run in read(grid).values():
        if run["status"] == "ok":
            kept = run["record_losses"]
            for when in ("end", "best"):
                total = sum(mean * tokens for mean, tokens in zip(kept[when], kept["tokens"], strict=True))
                assert total / sum(kept["tokens"]) == pytest.approx(run[when]["test_loss"], abs=1e-5)
            assert len(kept["tokens"]) == 8


def test_compute_matched_controls_and_jobs(tiny, tmp_path, capsys):
    argv = ["--strategies", "r_drop", "--controls", "label_smoothing,instruction_modelling", "--seeds", "2"]
    argv += ["--compute-matched", "--lengths", "1/3,1,2"]
    assert compare(tiny, tmp_path, *argv, "--jobs", "2") == 0
    records = list(read(tmp_path).values())
    assert {run["status"] for run in records} == {"ok"} and len(records) == 14
    runs = {(run["control"] or run["noise"]["name"], round(run["share"], 2)): run for run in records}
    # r_drop's baseline, plain training for as many steps, is a row without being asked for.
    assert runs["r_drop", 0.5]["steps"] == runs["none", 0.5]["steps"] == 2 and runs["none", 0.5]["passes"] == 1
    assert [runs["none", share]["steps"] for share in (0.33, 1.0, 2.0)] == [1, 3, 6]
    assert len({run["row"] for run in records}) == 7
    # Everything is measured by the same plain loss, whatever a control trains on.
    none = runs["none", 1.0]
    for name in ("label_smoothing", "instruction_modelling"):
        assert 0 < abs(runs[name, 1.0]["end"]["test_loss"] - none["end"]["test_loss"]) < 0.2
    assert runs["label_smoothing", 1.0]["training_loss"] != none["training_loss"]
    check_lengths(summarize(read_folder(tmp_path / "tiny")))
    capsys.readouterr()
    assert main(["report", str(tmp_path / "tiny")]) == 0
    out = capsys.readouterr().out
    assert "## Against the best plain run of any length" in out and "chosen on one half of the test records" in out
    assert "## Test loss, checkpoint chosen on other records at the end" in out
    with pytest.raises(NoiseError, match=r"compute_matched True and None"):
        tasks(make_grid(str(tiny)), tmp_path / "tiny")


def check_lengths(experiment):
    """Check what is said of plain training at other lengths."""
    rows = {row.label: row for row in experiment.rows}
    lengths = [f"none, {length} the steps" for length in ("1/2 of", "1/3 of", "2 times")]
    assert list(rows)[:5] == ["none", "r_drop", *lengths]
    assert rows["r_drop"].baseline is rows["none, 1/2 of the steps"]
    assert rows["label_smoothing"].baseline is rows["none"]
    cell = rows["r_drop"].cells["test_loss", "end"]
    ours, theirs = (rows[label].values("test_loss", "end") for label in ("r_drop", "none, 1/2 of the steps"))
    assert cell.difference.values == tuple(ours[seed] - theirs[seed] for seed in (0, 1))
    assert cell.baseline == pytest.approx(sum(theirs.values()) / 2)
    reference = find_reference(experiment)
    choosing = {label: fmean(row.values(HALVES[0], "end").values()) for label, row in rows.items() if "none" in label}
    assert reference.row.label == min(choosing, key=choosing.get) and reference.halves
    assert reference.mean == pytest.approx(fmean(reference.row.values(HALVES[1], "end").values()))
    assert {row.label for row, _, _ in reference.rows} == {"r_drop", "label_smoothing", "instruction_modelling"}


def test_seeds_draw_records_and_every_run_is_evaluated(tiny, tmp_path, capsys):
    options = "records: 4, answers: 2, max_new_tokens: 6, words: 2, rates: [0.5], alphas: [5], min_new_tokens: 3"
    argv = ["--strategies", "neft_uniform", "--controls", "instruction_modelling", "--seeds", "1"]
    assert compare(tiny, tmp_path, *argv, "--train_records", "5", "--evaluate", options) == 0
    runs = list(read(tmp_path).values())
    assert {run["status"] for run in runs} == {"ok"} and len(runs) == 3
    for run in runs:
        assert run["config"]["train_records"] == 5 and run["config"]["model_name_or_path"]
        found = run["evaluation"]
        assert 0 <= found["train_rouge_l"] <= 1 and 0 < found["test_tokens"] <= 6 and found["noise_5_loss"] > 0
        assert 0 <= found["test_accuracy"] <= 1 and found["end_blocked_tokens"] >= 3 and "test_repetition_2" in found
        assert 0 < run["cpu_s"]
    starts = {run["seed"]: set() for run in runs}
    for run in runs:
        if not run["control"]:  # a control of the grading sees the same records and another loss
            starts[run["seed"]].add(run["tokens"])
    assert all(len(tokens) == 1 for tokens in starts.values()), "all rows of a seed train on the same records"
    capsys.readouterr()
    assert main(["report", str(tmp_path / "tiny")]) == 0
    out = capsys.readouterr().out
    assert "## ROUGE-L on train prompts at the end" in out and "## Accuracy, test at the end" in out
    with pytest.raises(NoiseError, match="train_records 5 and None"):
        tasks(make_grid(str(tiny)), tmp_path / "tiny")


def test_shipped_files_are_told_by_their_place_among_the_recipes():
    grid = make_grid("quickstart")
    assert grid.settings["model_name_or_path"] == "{recipes}/quickstart/model"
    other = {**grid.settings, "model_name_or_path": "{recipes}/quickstart/data"}
    assert fingerprint(other) != fingerprint(grid.settings), "contents count, wherever the recipes lie"


@pytest.mark.parametrize("cpu", [True, False])
def test_the_process_to_fork_off_is_started_on_a_cpu_only_and_without_torch_here(cpu):
    code = f"import sys\nfrom neft_zoo.compare.processes import get_ready\nget_ready({cpu})\n"
    code += "from multiprocessing.forkserver import _forkserver as server\n"
    code += "assert 'torch' not in sys.modules\nprint(server._forkserver_pid is not None)\n"
    code += "import os\nif server._forkserver_pid: os.kill(server._forkserver_pid, 9)"  # it would import torch first
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(cpu), done.stderr


def test_files_are_readable_and_distinct(tmp_path):
    path = results.path_of(tmp_path, "neft_uniform", "0123456789ab", 3)
    assert path.name == "neft_uniform-01234567-s3.json"
