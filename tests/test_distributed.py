"""Two processes on CPU, by the launchers of real runs; each checks that accelerate did not fall back to one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_worker as worker
import pytest
import torch
from conftest import apart, same

WORKER = Path(worker.__file__)
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no".split()
ACCELERATE += ["--dynamo_backend", "no", "--main_process_port", "0"]
SAVE = {"save_strategy": "steps", "save_steps": 2}
CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
NEFT = {"name": "neft_uniform", "alpha": 1}
SEVERAL = {"symnoise": {"name": "symnoise", "alpha": 1}, "r3f": {"name": "r3f", "eps": 0.1}, "freelb": "freelb"}
DDP = {
    "plain": {},
    "zero": {"noise": {"name": "neft_uniform", "alpha": 0}},
    "noise": {"noise": NEFT, "settings": SAVE},
    "alike": {"noise": NEFT, "ranks": [0]},
    "equal data": {"noise": NEFT, "equal": True},
    "local": {"noise": NEFT, "settings": {"average_tokens_across_devices": False}},
    **{name: {"noise": noise} for name, noise in SEVERAL.items()},
}
MORE = {
    "lora": {"noise": SEVERAL["symnoise"], "lora": True},
    "checkpointed": {"noise": SEVERAL["symnoise"], "settings": CHECKPOINTING},
    "checkpointed r3f": {"noise": SEVERAL["r3f"], "settings": CHECKPOINTING},
}
WRAP = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
SHARDED = {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True, **WRAP}}
FSDP = {
    "noise": {"noise": NEFT, "settings": {**SHARDED, **SAVE}},
    "lora": {"noise": SEVERAL["symnoise"], "lora": True, "settings": SHARDED},
    **{name: {"noise": noise, "settings": SHARDED} for name, noise in SEVERAL.items()},
}


def launch(launcher, cases, out):
    """Run the worker in two processes; return the results of both ranks and the folder."""
    (out / "cases.json").write_text(json.dumps(cases))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", *launcher, str(WORKER), str(out / "cases.json"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt") for rank in (0, 1)], out


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    return launch(TORCHRUN, DDP, tmp_path_factory.mktemp("ddp"))


@pytest.fixture
def alone(tmp_path):
    """Return a trainer of the same global batch in this process."""

    def train(case, **settings):
        case = {**case, "settings": {**case.get("settings", {}), **settings}}
        return worker.train(case, tmp_path / "alone")

    return train


def test_two_ranks_draw_different_noise_of_the_nominal_size(ddp):
    ranks, _ = ddp
    for done in ranks:
        for case in done.values():
            assert case["type"] == "DistributedType.MULTI_CPU" and case["processes"] == 2
        assert done["noise"]["ratios"] == pytest.approx([1, 1], abs=0.05)
    one, other = (done["equal data"]["deltas"][0].flatten() for done in ranks)
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.1
    one, other = (done["equal data"]["deltas"][0] for done in ranks)
    assert abs(torch.corrcoef(torch.stack([one[0].flatten(), one[1].flatten()]))[0, 1]) < 0.15


def test_ranks_end_with_the_same_weights_and_no_strength_is_plain_trl(ddp):
    (first, second), _ = ddp
    assert all(same(first[name]["weights"], second[name]["weights"]) for name in DDP)
    assert same(first["zero"]["weights"], first["plain"]["weights"])
    assert first["zero"]["losses"] == first["plain"]["losses"]


def test_a_step_equals_the_same_global_batch_in_one_process(ddp, alone):
    (first, _), _ = ddp
    plain = alone(DDP["plain"], per_device_train_batch_size=4)
    assert plain["processes"] == 1 and apart(plain["weights"], first["plain"]["weights"]) < 1e-6
    whole = alone(DDP["alike"], per_device_train_batch_size=4)
    assert apart(whole["weights"], first["alike"]["weights"]) < 1e-6
    assert first["alike"]["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert apart(whole["weights"], first["noise"]["weights"]) > 1e-5


@pytest.mark.parametrize("name", ["noise", *SEVERAL])
def test_gradients_are_the_mean_of_the_local_ones(ddp, alone, name):
    """One process that takes the ranks' batches, and draws their noise, in turn."""
    (first, _), _ = ddp
    turns = alone({"noise": DDP[name]["noise"], "ranks": [0, 1]}, gradient_accumulation_steps=2)
    assert apart(turns["weights"], first[name]["weights"]) < 1e-6
    assert first[name]["losses"] == pytest.approx(turns["losses"], abs=1e-5)


def test_a_mean_over_each_ranks_own_tokens_is_kept(ddp):
    (first, _), _ = ddp
    assert first["local"]["losses"] == pytest.approx(first["noise"]["losses"], rel=0.05)
    assert first["local"]["losses"] != first["noise"]["losses"]


def test_a_checkpoint_holds_the_noise_once(ddp):
    _, out = ddp
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("noise.json*"))
    assert found == ["noise/checkpoint-2/noise.json"]
    assert json.loads((out / found[0]).read_text())["name"] == "neft_uniform"


@pytest.mark.slow
def test_accelerate_launch_lora_and_checkpointing(ddp, alone, tmp_path):
    (first, second), _ = launch(ACCELERATE, {**MORE, "noise": DDP["noise"]}, tmp_path)
    assert first["noise"]["type"] == "DistributedType.MULTI_CPU" and first["noise"]["processes"] == 2
    assert same(first["noise"]["weights"], ddp[0][0]["noise"]["weights"])
    for name, case in MORE.items():
        turns = alone({**case, "ranks": [0, 1]}, gradient_accumulation_steps=2)
        assert same(first[name]["weights"], second[name]["weights"])
        assert apart(turns["weights"], first[name]["weights"]) < 1e-6


@pytest.mark.slow
def test_fsdp2_trains_as_ddp_does(ddp, tmp_path):
    (first, second), out = launch(TORCHRUN, FSDP, tmp_path)
    (lora, _), _ = launch(TORCHRUN, {"lora": MORE["lora"]}, tmp_path)
    expected = {**ddp[0][0], **lora}
    for name in FSDP:
        assert first[name]["type"] == "DistributedType.FSDP" and first[name]["model"].startswith("FSDP")
        assert first[name]["losses"] == pytest.approx(expected[name]["losses"], abs=1e-4)
        assert apart(first[name]["weights"], expected[name]["weights"]) < 1e-5
    for done in (first, second):
        assert done["noise"]["ratios"] == pytest.approx([1, 1], abs=0.05)
    assert [path.parent.name for path in out.rglob("noise.json")] == ["checkpoint-2"]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed")
def test_zero3_trains_as_ddp_does(ddp, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    batch = {name: "auto" for name in ("train_batch_size", "train_micro_batch_size_per_gpu")}
    settings = {"deepspeed": {"zero_optimization": {"stage": 3}, "zero_allow_untested_optimizer": True, **batch}}
    (first, _), _ = launch(TORCHRUN, {"noise": {"noise": NEFT, "settings": settings}}, tmp_path)
    assert first["noise"]["type"] == "DistributedType.DEEPSPEED"
    assert first["noise"]["losses"] == pytest.approx(ddp[0][0]["noise"]["losses"], abs=1e-4)
