"""Runs that are killed, disks that are full: what is left can be resumed, and a torn checkpoint never is."""

import errno
import json
import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from small_models import QUICKSTART, same
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer, make
from neft_zoo.cli.main import main
from neft_zoo.training import provenance, token_counts

SCHEDULED = {"name": "neft_scheduled", "alpha": {"schedule": "linear", "start": 9, "end": 1}}
NOISES = ["neft_uniform", SCHEDULED, "symnoise", "freelb", "noisy_tune", "flat_lora", "token_frequency"]


def trainer_of(folder, noise, **settings):
    """Return a trainer of a tiny Llama with dropout that saves every second of its steps."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=2, attention_dropout=0.1, **sizes))
    draw = random.Random(0)
    rows = [{"input_ids": [draw.randrange(2, 64) for _ in range(draw.randrange(6, 16))]} for _ in range(40)]
    told = dict(max_steps=24, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1)
    quiet = dict(report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False)
    lora = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1, task_type="CAUSAL_LM")
    return SFTTrainer(
        model,
        args=NoiseSFTConfig(output_dir=str(folder), **{**told, **quiet, **settings}),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(QUICKSTART / "model"),
        peft_config=lora if noise == "flat_lora" else None,
        noise=noise,
    )


def train(folder, noise, steps):
    """Go on from the last complete checkpoint, or begin; what a killed child runs."""
    trainer_of(folder, noise, max_steps=steps).train(resume_from_checkpoint=bool(provenance.last_complete(folder)))


def step_of(checkpoint):
    return 0 if checkpoint is None else int(checkpoint.name.partition("-")[2])


def kill_while_writing(process, folder, draw, steps):
    """Kill the run once one of its next checkpoints appears, at once or up to 50 ms later; return whether it was torn.

    False as well if the run was over before that.
    """
    target = min(steps, step_of(provenance.last_complete(folder)) + 2 * draw.randint(1, 3))
    while process.is_alive() and not (folder / f"checkpoint-{target}").exists():
        time.sleep(0.0005)
    time.sleep(draw.choice([0, 0, draw.uniform(0, 0.05)]))
    process.kill()
    process.join()
    found = list(folder.glob("checkpoint-*"))
    return bool(found) and not provenance.is_complete(max(found, key=step_of))


def killed_run(folder, noise, kills, steps, seed=0):
    """Train, killed this many times; return how many kills left a torn checkpoint."""
    context = multiprocessing.get_context("forkserver")  # children share the imports
    context.set_forkserver_preload(["neft_zoo.training.trainers", "peft", "small_models"])
    draw, torn, done = random.Random(seed), 0, 0
    while done < kills:
        process = context.Process(target=train, args=(folder, noise, steps))
        process.start()
        torn += kill_while_writing(process, folder, draw, steps)
        assert process.exitcode == -9, "the run ended by itself"
        done += 1
        last = provenance.last_complete(folder)
        if step_of(last) >= steps - 6:  # too near to the end for another kill: go back half the way
            for path in folder.glob("checkpoint-*"):
                if step_of(path) > steps // 2:
                    shutil.rmtree(path)
    process = context.Process(target=train, args=(folder, noise, steps))
    process.start()
    process.join()
    assert process.exitcode == 0
    return torn


def ends_alike(one, other, steps):
    """Return whether two runs left the same weights and losses."""
    saved = [next((folder / f"checkpoint-{steps}").glob("*model.safetensors")) for folder in (one, other)]
    states = [json.loads((path.parent / provenance.STATE).read_text())["log_history"] for path in saved]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in states]
    return same(*map(load_file, saved)) and losses[0] == losses[1]


@pytest.mark.cell("Faults", "SIGKILL at any moment of a checkpoint")
def test_a_run_that_is_killed_twice_ends_like_one_that_is_not(tmp_path):
    train(tmp_path / "whole", "neft_uniform", 8)
    killed_run(tmp_path / "killed", "neft_uniform", kills=2, steps=8)
    assert ends_alike(tmp_path / "whole", tmp_path / "killed", 8)


@pytest.mark.cell("Faults", "SIGKILL at any moment of a checkpoint")
@pytest.mark.slow
def test_soak_killed_runs_end_like_whole_ones(tmp_path):
    torn = 0
    for number, noise in enumerate(NOISES):
        whole, killed = tmp_path / f"whole-{number}", tmp_path / f"killed-{number}"
        train(whole, noise, 24)
        torn += killed_run(killed, noise, kills=4, steps=24, seed=number)
        assert ends_alike(whole, killed, 24), noise
    print(f"{4 * len(NOISES)} kills, {torn} of them left a torn checkpoint")
    assert torn >= 3, "too few kills met a checkpoint that was being written"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run with checkpoints 2 and 4."""
    folder = tmp_path_factory.mktemp("run")
    train(folder, "neft_uniform", 4)
    return folder


def tear(checkpoint, how):
    """Leave a checkpoint as a kill at some moment does."""
    if how == "weights cut":
        weight_file, state = checkpoint / "model.safetensors", checkpoint / provenance.STATE
        weight_file.write_bytes(weight_file.read_bytes()[:100])
        state.unlink()
    elif how == "state cut":
        text = (checkpoint / provenance.STATE).read_text()
        (checkpoint / provenance.STATE).write_text(text[: len(text) // 2])
    else:
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()


@pytest.mark.parametrize("how", ["weights cut", "state cut", "empty"])
def test_a_torn_checkpoint_is_passed_over_or_refused(finished, tmp_path, how):
    out = shutil.copytree(finished, tmp_path / "run")
    tear(out / "checkpoint-4", how)
    with pytest.raises(NoiseError, match="must be a complete checkpoint, got .*checkpoint-4"):
        trainer_of(out, "neft_uniform", max_steps=4).train(resume_from_checkpoint=str(out / "checkpoint-4"))
    train(out, "neft_uniform", 4)
    assert ends_alike(finished, out, 4)
    for name in ("checkpoint-2", "checkpoint-4"):
        tear(out / name, how)
    with pytest.raises(NoiseError, match=f"needs a complete checkpoint in output_dir, got none in {out}"):
        trainer_of(out, "neft_uniform", max_steps=4).train(resume_from_checkpoint=True)


def test_the_command_says_that_there_is_nothing_to_resume(tmp_path, capsys):
    argv = ["sft", "--config", "quickstart", "--output_dir", str(tmp_path / "new"), "--eval_strategy", "no"]
    assert main([*argv, "--resume_from_checkpoint", "true"]) == 2
    assert "needs a complete checkpoint in output_dir, got none" in capsys.readouterr().err


@pytest.mark.cell("Faults", "full disk at a checkpoint")
@pytest.mark.parametrize(("noise", "file"), [("neft_uniform", "noise.json"), ("token_frequency", token_counts.FILE)])
def test_a_full_disk_at_a_checkpoint_stops_the_run_and_spares_the_earlier_ones(tmp_path, monkeypatch, noise, file):
    replace = Path.replace

    def full(self, target):
        if Path(target).name == file and "checkpoint-4" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    out = tmp_path / "run"
    monkeypatch.setattr(Path, "replace", full)
    broken = trainer_of(out, noise, max_steps=6)
    with pytest.raises(NoiseError, match=f"{file} must be a file that can be written: No space left on device"):
        broken.train()
    assert not list(out.rglob("*.partial")) and not (out / "checkpoint-4" / file).exists()
    assert not broken.session.hooks and not any(module._forward_hooks for module in broken.model.modules())
    monkeypatch.undo()
    provenance.check(out / "checkpoint-2", make(noise))
    assert provenance.last_complete(out) == out / "checkpoint-2"
    train(out, noise, 6)
    train(tmp_path / "whole", noise, 6)
    assert ends_alike(out, tmp_path / "whole", 6)
