"""Comparisons as a user runs them: what is trained, what is kept, what is done again."""

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from statistics import fmean

import pytest
import torch
import trl
import yaml
from selection import quick
from warm import started_command

from neft_zoo import registry
from neft_zoo.cli.main import main
from neft_zoo.compare import planning, results
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
from neft_zoo.compare.rows import read_lengths
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
    assert left_text(3600.0, 1.0, 4.0) == "3.0 h left" and left_text(5.0, 0.0, 4.0) == "0 s left"


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


def test_the_grid(tiny):
    made = make_grid("quickstart", ["neft_u*", "symnoise"], 2, ["neft_uniform.alpha=5,10", "symnoise.alpha=1"])
    assert [(row.name, row.noise.get("alpha")) for row in made.rows] == [
        ("none", None),
        ("neft_uniform", 5.0),
        ("neft_uniform", 10.0),
        ("symnoise", 1.0),
    ]
    assert [seed for _, seed in made.runs()] == [0] * 4 + [1] * 4
    assert [row.name for row in make_grid("quickstart").rows] == ["none", "neft_uniform"], "the recipe's own"
    assert len(make_grid("quickstart", ["none", "non*"]).rows) == 1
    control = make_grid("quickstart", ["none"], controls=["weight_decay"]).rows[1]
    assert control.overrides == {"weight_decay": 0.1} and control.name == "weight_decay"
    decays = make_grid("quickstart", ["none"], settings=["weight_*.weight_decay=0.01,0.1"], controls=["weight_decay"])
    assert [row.overrides for row in decays.rows[1:]] == [{"weight_decay": 0.01}, {"weight_decay": 0.1}]
    spelled = ["learning_rate.learning_rate=1e-4,0.0001,'1.0E-4',1e-2"]
    rates = make_grid("quickstart", ["none"], settings=spelled, controls=["learning_rate"])
    assert [row.overrides for row in rates.rows[1:]] == [{"learning_rate": 1e-4}, {"learning_rate": 1e-2}]
    lengths = make_grid("quickstart", ["symnoise"], lengths=["0.25", "1"], compute_matched=True)
    assert [(row.name, str(row.length)) for row in lengths.rows] == [
        ("none", "1"),
        ("symnoise", "1"),
        ("none", "1/2"),
        ("none", "1/4"),
    ]
    assert [str(row.length) for row in make_grid("quickstart", ["none"], lengths=None).rows] == ["1", "1/2", "1/4"]
    schedule = ["neft_uniform.alpha={schedule: linear, start: 10, end: 0}"]
    assert make_grid("quickstart", ["neft_uniform"], settings=schedule).rows[1].noise["alpha"]["start"] == 10


def test_a_control_that_other_options_overrule_is_refused(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: quickstart\nmax_steps: '10'\n")
    assert len(make_grid(str(recipe), controls=["weight_decay"]).rows) == 3
    with pytest.raises(NoiseError, match="got 'epochs_2': the recipe has max_steps 10.$"):
        make_grid(str(recipe), controls=["epochs_2"])
    control = tmp_path / "rank.yaml"
    control.write_text("extends: base\nlora_r: 4\n")
    with pytest.raises(NoiseError, match="rank.yaml': the recipe has no adapter.$"):
        make_grid("quickstart", controls=[str(control)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_length: 64", "controls must leave alone what losses are measured on, got '.*' with max_length"),
        ("dataset_test_split: train", "controls must leave alone what .* with dataset_test_split"),
        ("weight_decay: 0.1\nnoise: symnoise", "controls must be plain training, got '.*' with noise"),
        ("neftune_noise_alpha: 5", "controls must be plain training, got '.*' with neftune_noise_alpha"),
    ],
)
def test_a_control_with_noise_or_another_yardstick_is_refused(tmp_path, text, message):
    control = tmp_path / "c.yaml"
    control.write_text(f"extends: base\n{text}\n")
    with pytest.raises(NoiseError, match=message):
        make_grid("quickstart", controls=[str(control)])


def test_the_key_follows_contents_not_paths(tmp_path):
    (tmp_path / "a.jsonl").write_text("1")
    one = fingerprint({"dataset_name": str(tmp_path / "a.jsonl")})
    mixture = {"datasets": [{"path": "json", "data_files": {"train": str(tmp_path / "a.jsonl")}}]}
    template, mixed = {"chat_template_path": str(tmp_path / "a.jsonl")}, fingerprint(mixture)
    written = fingerprint(template)
    (tmp_path / "a.jsonl").write_text("2")
    assert fingerprint({"dataset_name": str(tmp_path / "a.jsonl")}) != one
    assert fingerprint(template) != written and fingerprint(mixture) != mixed


def test_margins_that_change_are_those_of_finished_runs_too(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: quickstart\n")
    (task,) = tasks(make_grid(str(recipe), ["none"], 1), tmp_path / "out")
    results.write(task.path, replace(task.record, status="ok"))
    recipe.write_text("extends: quickstart\nmargins: {test_loss: 0.02}\n")
    later = tasks(make_grid(str(recipe), ["none"], 1), tmp_path / "out")
    assert planning.missing(later) == [] and results.read(task.path).margins == {"test_loss": 0.02}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strategies", "neft_unifrom"], "did you mean neft_uniform"),
        (["--strategies", "x*"], "strategies must match a name, got 'x*'"),
        (["--strategies", "symnoise", "--set", "neft_uniform.alpha=5"], "set must name a chosen strategy"),
        (["--set", "alpha=5"], "set must be strategy.argument=value,value, got 'alpha=5'"),
        (["--set", "neft_uniform.alpha="], "set must be strategy.argument=value,value"),
        (
            ["--set", "neft_uniform.alpha=5", "--set", "neft_*.alpha=10"],
            "set must give neft_uniform.alpha once, with all its values, got it twice",
        ),
        (["--set", "neft_uniform.alpha=-1"], "alpha must be a finite number >= 0, got -1"),
        (["--controls", "lora_dropout"], "control 'lora_dropout' needs use_peft: true in the recipe"),
        (
            ["--controls", "weight_decay", "--set", "weight_decay.weight_decay=0.0"],
            "controls must change an option of the recipe, got 'weight_decay': the recipe has weight_decay 0.0",
        ),
        *(
            (
                ["--controls", "learning_rate", "--set", f"learning_rate.learning_rate={value}"],
                "got 'learning_rate': the recipe has learning_rate 0.001 already.",
            )
            for value in ("0.001", "1.0e-3", "1e-3", "10E-4", "'0.001'", "2e-3,1e-3")
        ),
        (
            ["--controls", "epochs_1", "--set", "epochs_1.max_steps=-1", "--set", "epochs_1.num_train_epochs=2,1.0"],
            "got 'epochs_1': the recipe has num_train_epochs 1.0, max_steps -1 already",
        ),
        (["--controls", "weight_decay", "--set", "weight_decay.weight_dekay=1"], "did you mean weight_decay"),
        (["--controls", "weight_decay", "--set", "weight_decay.weight_decay=null"], "must be a number, got None"),
        (["--controls", "weight_decay", "--set", "weight_decay.weight_decay=lots"], "invalid float value: 'lots'"),
        (["--controls", "weight_decay", "--set", "weight_*.seed=1,2"], "set must name an option that a comparison"),
        (["--lengths", "1/2,0"], "lengths must be multiples of the recipe's steps above 0 and up to 10, got '0'"),
        (["--lengths", "half"], "lengths must be multiples of the recipe's steps above 0 and up to 10, got 'half'"),
        (["--controls", "nothing_such"], "config must be a YAML file or a name that neft-zoo recipes ls shows"),
        (["--seeds", "0"], "seeds must be a whole number >= 1, got 0"),
        (["--jobs", "0"], "jobs must be a whole number >= 1, got 0"),
        (["--train_records", "0"], "train_records must be a whole number >= 1, got 0"),
        (["--evaluate", "anwsers: 3"], "options of an evaluation must be among"),
        (["--evaluate", "rates: 0.1"], "rates must be a value like"),
        (["--evaluate", "[3"], "evaluate must be options such as"),
    ],
)
def test_wrong_input_ends_before_a_run(tmp_path, capsys, argv, message):
    assert main(["compare", "quickstart", "--output", str(tmp_path / "out"), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("steps", "usual"), [(-1, "1/4 1/2"), (3, "1/4 1/2"), (2, "1/2"), (1, "")])
def test_every_length_of_plain_training_has_a_step(steps, usual):
    assert read_lengths(None, {"max_steps": steps}) == {Fraction(length) for length in usual.split()}
    if steps == 1:
        with pytest.raises(NoiseError, match="lengths must leave at least one of the recipe's 1 max_steps, got '1/4'"):
            read_lengths(["1/4"], {"max_steps": steps})


@pytest.mark.parametrize(
    ("split", "records", "message"),
    [
        ("test", "", "the recipe's dataset must be readable and its files not empty"),
        ("test", '{"prompt": "a", "compl', "the recipe's dataset must be readable and its files not empty"),
        ("test", None, "the dataset must have a split 'test', got train"),
        ("train", "", "the recipe's dataset must be readable and its files not empty"),
        ("more", '{"prompt": "a", "completion": "b"}', "train_records must be at most the 1 that there are, got 2"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "tune", "alpha"])
def test_an_empty_or_missing_split_ends_before_a_run(tmp_path, capsys, monkeypatch, command, split, records, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    whole = '{"prompt": "a", "completion": "b"}'
    for name, text in ({"train": whole, "test": whole} | {split: records}).items():
        if text is not None and name != "more":
            (tmp_path / "data" / f"{name}.jsonl").write_text(text)
    (tmp_path / "r.yaml").write_text("extends: quickstart\ndataset_name: data\n")
    argv = [command, "r.yaml", "--output", "out"] + (["--train_records", "2"] if split == "more" else [])
    if command == "alpha" and (split == "more" or records is None):
        pytest.skip("it draws nothing and looks at no test split")
    if command == "tune":
        pytest.importorskip("optuna")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert f"neft-zoo: error: {message}" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists(), "nothing is half-written"


def test_files_are_readable_and_distinct(tmp_path):
    path = results.path_of(tmp_path, "neft_uniform", "0123456789ab", 3)
    assert path.name == "neft_uniform-01234567-s3.json"
