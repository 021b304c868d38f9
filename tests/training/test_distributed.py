"""Two processes on CPU, slow tests by the launchers of real runs; each checks that accelerate did not fall back."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import distributed_worker as worker
import pytest
import torch
from small_models import apart, same
from warm import started

WORKER = Path(worker.__file__)
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no".split()
ACCELERATE += ["--dynamo_backend", "no", "--main_process_port", "0"]
SAVE = {"save_strategy": "steps", "save_steps": 2}
CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
NEFT = {"name": "neft_uniform", "alpha": 1}
SEVERAL = {"symnoise": {"name": "symnoise", "alpha": 1}, "r3f": {"name": "r3f", "eps": 0.1}, "freelb": "freelb"}
BALL = {"radius": 0.3, "start": 0.01, "size": 0.3}
LAT = {"name": "lat", "eps": 1.0, "steps": 2, "size": 0.5, "layers": [1]}
HYPE = {"name": "hype", "size": 0.01}
DDP = {
    "plain": {},
    "zero": {"noise": {"name": "neft_uniform", "alpha": 0}},
    "noise": {"noise": NEFT, "settings": SAVE},
    "alike": {"noise": NEFT, "ranks": [0]},
    "equal data": {"noise": NEFT, "equal": True},
    "local": {"noise": NEFT, "settings": {"average_tokens_across_devices": False}},
    **{name: {"noise": noise} for name, noise in SEVERAL.items()},
}
REENTRANT = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
MORE = {
    "lora": {"noise": SEVERAL["symnoise"], "lora": True},
    "checkpointed": {"noise": SEVERAL["symnoise"], "settings": CHECKPOINTING},
    "checkpointed r3f": {"noise": SEVERAL["r3f"], "settings": CHECKPOINTING},
    "lnsr": {"noise": "lnsr"},
    "lat": {"noise": LAT},
    "hype": {"noise": HYPE},
    "smart": {"noise": {"name": "smart", **BALL}},
    "noisy_tune": {"noise": "noisy_tune"},
    "token_subspace": {"noise": {"name": "token_subspace", "k": 4}},
    "token_frequency": {"noise": "token_frequency"},
    "qlora": {"noise": NEFT, "lora": True, "saved": True, "quantized": True},
    **{
        f"accumulated {name}": {"noise": noise, "settings": {"gradient_accumulation_steps": 2}}
        for name, noise in (("r3f", SEVERAL["r3f"]), ("freelb", "freelb"), ("lat", LAT))
    },
}
ACCUMULATED = [name for name in MORE if name.startswith("accumulated")]
AGAIN = {
    "hype, non-reentrant": {"noise": HYPE, "settings": CHECKPOINTING},
    "hype, reentrant": {"noise": HYPE, "settings": REENTRANT},
    "lat, non-reentrant": {"noise": LAT, "settings": CHECKPOINTING},
    "noise, again": DDP["noise"],
}
ALL = {**DDP, **MORE}
SHARED = ["noise", *SEVERAL, "lora", "lnsr", "lat", "smart", "noisy_tune", "token_subspace", "token_frequency"]
SHARED += ACCUMULATED
# What looks at the weights before training, with a model that the engine has split, or left empty, when it was loaded.
LOADED = ["noisy_tune", "token_subspace", "token_frequency"]
WRAP = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
SHARDED = {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True, **WRAP}}
RECOMPUTED = {"fsdp": True, "fsdp_config": {**SHARDED["fsdp_config"], "activation_checkpointing": True}}
FROM_RANK_0 = {"fsdp": True, "fsdp_config": {**SHARDED["fsdp_config"], "cpu_ram_efficient_loading": True}}
AS_TOLD = ["train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"]
ZERO3 = {"zero_optimization": {"stage": 3}, "zero_allow_untested_optimizer": True, **dict.fromkeys(AS_TOLD, "auto")}
PARTITIONED = {"deepspeed": ZERO3, "use_cpu": False}
SPLIT_GRADIENTS = {"deepspeed": {**ZERO3, "zero_optimization": {"stage": 2}}, "use_cpu": False}


def under(engine, names, told="", **more):
    """Return the cases of these names under an engine's settings."""
    return {
        name + told: {**ALL[name], **more, "settings": {**ALL[name].get("settings", {}), **engine}} for name in names
    }


FSDP = {
    **under({**SHARDED, **SAVE}, ["noise"], ", again"),
    **under(SHARDED, SHARED),
    **under(RECOMPUTED, ["r3f", "lnsr", "lat", "hype"], ", recomputed"),
    **under(SHARDED, ["qlora"]),
    **under(FROM_RANK_0, LOADED, ", loaded", saved=True),
    "flat_lora": {"noise": "flat_lora", "lora": True, "settings": SHARDED},
    "cp_size": {"noise": NEFT, "settings": SHARDED, "parallelism": {"cp_size": 2}},
}
ZERO = {
    **under(PARTITIONED, ["noise"], ", again"),
    **under(PARTITIONED, SHARED),
    **under(PARTITIONED, LOADED, ", loaded", saved=True),
    "flat_lora": {"noise": "flat_lora", "lora": True, "settings": PARTITIONED},
}
PASSING_BY = {
    "Lookup": {"noise": NEFT, "trainer": "Lookup", "settings": SPLIT_GRADIENTS},
    "Callback": {"noise": NEFT, "trainer": "Callback", "settings": SPLIT_GRADIENTS},
    "Skips": {"noise": NEFT, "trainer": "Skips", "settings": SPLIT_GRADIENTS},
    "Step": {"noise": SEVERAL["symnoise"], "trainer": "Step", "settings": SPLIT_GRADIENTS},
    "Step, split weights": {"noise": SEVERAL["symnoise"], "trainer": "Step", "settings": PARTITIONED},
}
SPLIT = ["noise", *SEVERAL, "lnsr", "smart", "accumulated r3f"]
TENSOR_PARALLEL = {
    **under({"save_strategy": "no"}, SPLIT, tensor_parallel=True),
    **under({"save_strategy": "no"}, ["noise"], ", again", tensor_parallel=True),
}
ENGINES = "Engines, two processes"


def launch(launcher, cases, out, **environment):
    """Run the worker in two processes; return the results of both ranks and the folder."""
    (out / "cases.json").write_text(json.dumps(cases))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment}
    command = [sys.executable, "-m", *launcher, str(WORKER), str(out / "cases.json"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt") for rank in (0, 1)], out


def launch_here(cases, out):
    """Do the same without a launcher, in processes that have imported everything and are told what torchrun tells."""
    (out / "cases.json").write_text(json.dumps(cases))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    told |= {"LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    ranks = [started(worker.main, out / "cases.json", out, RANK=rank, LOCAL_RANK=rank, **told) for rank in "01"]
    for process in ranks:
        process.join(600)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()  # one that waits for another that has failed
    assert codes == [0, 0]
    return [torch.load(out / f"{rank}.pt") for rank in (0, 1)], out


def launch_deepspeed(cases, out):
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    return launch(TORCHRUN, cases, out, DS_ACCELERATOR="cpu", ACCELERATE_USE_CPU="false")


def check_equal(ranks, expected, kind):
    """Check that an engine trained every case as DDP did, and that its ranks drew noise of their own."""
    trained = {name: case for name, case in ranks[0].items() if "refused" not in case}
    for name, case in trained.items():
        reference = expected[name.split(",")[0]]
        assert case["type"] == kind and case["processes"] == 2, name
        assert case["losses"] == pytest.approx(reference["losses"], abs=1e-4), name
        assert apart(case["weights"], reference["weights"]) < 1e-5, name
    assert same(ranks[0]["noise, again"]["weights"], ranks[0]["noise"]["weights"])
    for done, reference in zip(ranks, expected["ranks"], strict=True):
        assert torch.equal(done["noise"]["deltas"][0], reference["noise"]["deltas"][0])
        assert done["noise"]["ratios"] == pytest.approx([1, 1], abs=0.05)


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    return launch_here(DDP, tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module")
def more(ddp, tmp_path_factory):
    """Return what DDP does in all cases, on rank 0, and in the first ones on both."""
    ranks, _ = launch(ACCELERATE, {**MORE, **AGAIN, "noise": DDP["noise"]}, tmp_path_factory.mktemp("more"))
    return {**ddp[0][0], **ranks[0], "second": ranks[1], "ranks": ddp[0]}


@pytest.fixture
def told(refused):
    """Return `refused` for messages that another process raised."""
    return lambda message: refused(SimpleNamespace(value=message))


@pytest.fixture
def alone(tmp_path):
    """Return a trainer of the same global batch in this process."""

    def train(case, **settings):
        case = {**case, "settings": {**case.get("settings", {}), **settings}}
        return worker.train(case, tmp_path / "alone")

    return train


@pytest.mark.cell(ENGINES, "DDP")
@pytest.mark.cell(ENGINES, "data-parallel ranks draw different noise, under every engine")
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


@pytest.mark.cell(ENGINES, "DDP")
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
@pytest.mark.cell(ENGINES, "DDP, torchrun")
def test_torchrun_trains_as_processes_that_are_told_the_same(ddp, tmp_path):
    ranks, _ = launch(TORCHRUN, {"noise": DDP["noise"]}, tmp_path)
    for rank, done in enumerate(ranks):
        assert done["noise"]["type"] == "DistributedType.MULTI_CPU" and done["noise"]["processes"] == 2
        assert same(done["noise"]["weights"], ddp[0][rank]["noise"]["weights"])


@pytest.mark.slow
@pytest.mark.cell(ENGINES, "DDP, accelerate launch --multi_gpu")
@pytest.mark.cell(ENGINES, "the same layout again, under every engine: the same weights bit for bit")
def test_accelerate_launch_trains_as_torchrun_does(ddp, more):
    assert more["noise"]["type"] == "DistributedType.MULTI_CPU" and more["noise"]["processes"] == 2
    assert same(more["noise"]["weights"], ddp[0][0]["noise"]["weights"])
    assert same(more["noise, again"]["weights"], more["noise"]["weights"])
    assert all(same(more[name]["weights"], more["second"][name]["weights"]) for name in MORE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "checkpointed", "checkpointed r3f"])
@pytest.mark.cell(ENGINES, "DDP: {name}")
def test_lora_and_checkpointing_take_the_mean_of_the_local_gradients(more, alone, name):
    turns = alone({**MORE[name], "ranks": [0, 1]}, gradient_accumulation_steps=2)
    assert apart(turns["weights"], more[name]["weights"]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCUMULATED)
@pytest.mark.cell(ENGINES, "DDP: {name}")
def test_accumulated_steps_equal_one_process(more, alone, name):
    turns = alone({**MORE[name], "ranks": [0, 1]}, gradient_accumulation_steps=4)
    assert apart(turns["weights"], more[name]["weights"]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reentrant", "non-reentrant"])
@pytest.mark.cell(ENGINES, "DDP: noise on layers under {kind} activation checkpointing")
def test_noise_on_layers_is_the_same_when_layers_are_computed_again(more, kind):
    assert apart(more[f"hype, {kind}"]["weights"], more["hype"]["weights"]) < 1e-6
    if kind == "non-reentrant":
        assert apart(more["lat, non-reentrant"]["weights"], more["lat"]["weights"]) < 1e-6
    assert apart(more["hype"]["weights"], more["plain"]["weights"]) > 1e-4


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    return launch(TORCHRUN, FSDP, tmp_path_factory.mktemp("fsdp"))


@pytest.fixture(scope="module")
def zero3(tmp_path_factory):
    return launch_deepspeed(ZERO, tmp_path_factory.mktemp("zero3"))


@pytest.mark.slow
@pytest.mark.cell(ENGINES, "FSDP2: full, LoRA, QLoRA, accumulation, its own activation checkpointing")
@pytest.mark.cell(ENGINES, "the same layout again, under every engine: the same weights bit for bit")
@pytest.mark.cell(ENGINES, "data-parallel ranks draw different noise, under every engine")
def test_fsdp2_trains_as_ddp_does(more, fsdp):
    ranks, out = fsdp
    check_equal(ranks, more, "DistributedType.FSDP")
    assert all(case.get("model", "FSDP").startswith("FSDP") for case in ranks[0].values())
    assert {path.parent.name for path in out.rglob("noise.json")} == {"checkpoint-2"}


@pytest.mark.slow
@pytest.mark.cell(ENGINES, "DeepSpeed ZeRO-3: full, LoRA, accumulation")
@pytest.mark.cell(ENGINES, "the same layout again, under every engine: the same weights bit for bit")
@pytest.mark.cell(ENGINES, "data-parallel ranks draw different noise, under every engine")
def test_zero3_trains_as_ddp_does(more, zero3):
    ranks, _ = zero3
    assert ranks[0]["noise"]["empty"], "the weights were not split"
    check_equal(ranks, more, "DistributedType.DEEPSPEED")


@pytest.mark.slow
def test_a_step_without_noise_is_refused_before_deepspeed_takes_it(tmp_path, told):
    ranks, _ = launch_deepspeed(PASSING_BY, tmp_path)
    for name in ["Lookup", "Callback", "Step", "Step, split weights"]:
        done, host = ranks[0][name], name.split(",")[0]
        message = "the trainer must call the model with input_ids, in train mode, for a callback's noise of"
        message = message if name == "Callback" else f"{host}.training_step must call compute_loss, in train mode, for"
        assert done["refused"].startswith(message) and done["steps"] == 0, name
        told(done["refused"])
    assert len(ranks[0]["Skips"]["losses"]) == 2, "a step that skips its batches is one"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
@pytest.mark.cell(ENGINES, "flat_lora, {engine}")
def test_noise_on_split_weights_is_refused(engine, request, told):
    ranks, _ = request.getfixturevalue(engine)
    kind = {"fsdp": "FSDP", "zero3": "DEEPSPEED"}[engine]
    message = f"flat_lora needs whole weights, which it changes around a step, got {kind}: choose DDP."
    assert [done["flat_lora"] for done in ranks] == [{"refused": message}] * 2
    told(message)


@pytest.mark.slow
@pytest.mark.cell(ENGINES, "context parallelism (cp_size=2)")
def test_context_parallelism_is_refused(fsdp, told):
    message = "cp_size must be 1 with noise, which needs whole documents, got 2."
    assert [done["cp_size"] for done in fsdp[0]] == [{"refused": message}] * 2
    told(message)


@pytest.mark.slow
@pytest.mark.cell(ENGINES, "tensor parallelism (tp_plan='auto')")
@pytest.mark.cell(ENGINES, "the same layout again, under every engine: the same weights bit for bit")
def test_tensor_parallel_ranks_draw_the_same_noise_and_train_as_one_process(tmp_path, alone):
    (first, second), _ = launch(TORCHRUN, TENSOR_PARALLEL, tmp_path)
    for name, case in first.items():
        assert case["processes"] == 2 and case["split"], name
        assert case["losses"] == second[name]["losses"]
    assert torch.equal(first["noise"]["deltas"][0], second["noise"]["deltas"][0])
    assert first["noise"]["ratios"] == pytest.approx([1, 1], abs=0.05)
    assert same(first["noise, again"]["weights"], first["noise"]["weights"])
    for name in SPLIT:
        whole = alone(ALL[name], save_strategy="no")
        assert first[name]["losses"] == pytest.approx(whole["losses"], abs=1e-4), name
        assert apart(first[name]["weights"], whole["weights"]) < 1e-5, name
