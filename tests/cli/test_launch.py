"""`neft-zoo sft` through accelerate launch: what goes where, what is refused, and that two processes really start."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands import launch as upstream
from accelerate.commands.launch import _validate_launch_command

from neft_zoo import NoiseError
from neft_zoo.cli.launch import config_names, find_config, split, start
from neft_zoo.cli.main import main
from neft_zoo.config import recipe


def test_options_of_accelerate_are_told_from_trls():
    argv = "--config base --num_processes 2 --learning_rate 3 --main_process_ip=1.2.3.4 --same_network --debug x"
    engine, rest = split([*argv.split(), "--gradient_accumulation_steps", "4", "--bf16"])
    assert engine == ["--num_processes", "2", "--main_process_ip", "1.2.3.4", "--same_network"]
    assert rest == "--config base --learning_rate 3 --debug x --gradient_accumulation_steps 4 --bf16".split()


def test_a_config_is_a_name_or_a_file(tmp_path):
    assert set(config_names()) >= {"single_gpu", "multi_gpu", "fsdp1", "fsdp2", "zero1", "zero2", "zero3", "multi_cpu"}
    for name in config_names():
        assert "num_processes" in yaml.safe_load(find_config(name).read_text())
    mine = tmp_path / "mine.yaml"
    mine.write_text("num_processes: 1\n")
    assert split(["--accelerate_config", str(mine)])[0] == ["--config_file", str(mine)]
    assert Path(split(["--accelerate_config=fsdp2"])[0][1]).name == "fsdp2.yaml"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "--accelerate_config fsdp3",
            "accelerate_config must be a YAML file or one of fsdp1, .* got 'fsdp3'; did you",
        ),
        ("--accelerate_config", "--accelerate_config needs a value"),
        ("--num_processes 2 --config quikstart", "did you mean quickstart"),
        ("--num_processes 2 --config quickstart --noise neft_unifrom", "did you mean neft_uniform"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_a_process_starts(argv, message, capsys):
    with pytest.raises(NoiseError, match=message):
        start(*split(argv.split()))
    assert main(["sft", *argv.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("argv", ["--num_processes two", "--num_processes 2 --config quickstart --lerning_rate 3"])
def test_an_option_that_no_parser_knows_ends_with_status_2(argv, capsys):
    assert main(["sft", *argv.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1


RECIPES = sorted(path.stem for path in (recipe.folder() / "engines").glob("*.yaml"))
KINDS = {"ddp": "multi_gpu", "ddp_nodes": "multi_gpu", "zero3": "use_deepspeed"}  # the others shard


def commands_in(name):
    """Return the commands that a recipe's comment shows."""
    lines = [line.lstrip("# ") for line in (recipe.folder() / "engines" / f"{name}.yaml").read_text().splitlines()]
    shown = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in shown if line.startswith("neft-zoo sft")]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.cell("Engines, dry run of the recipe", "{name}")
def test_the_commands_of_a_recipe_start_its_engine(name, monkeypatch):
    started = []
    monkeypatch.setattr(
        upstream, "launch_command", lambda options: started.append(_validate_launch_command(options)[0])
    )
    shown = commands_in(name)
    assert shown and all(start(*split(argv)) == 0 for argv in shown)
    for options, argv in zip(started, shown, strict=True):
        assert getattr(options, KINDS.get(name, "use_fsdp"))
        assert options.num_processes == int(argv[argv.index("--num_processes") + 1])
        assert options.num_machines == (int(argv[argv.index("--num_machines") + 1]) if "--num_machines" in argv else 1)
        assert options.training_script == "neft_zoo" and options.training_script_args[:3:2] == [
            "sft",
            f"engines/{name}",
        ]


ON_CPU = {
    "multi_cpu": ("", {}),
    "fsdp2": ("import on_cpu; on_cpu.shard_on_cpu()", {}),
    "zero3": ("import on_cpu; on_cpu.deepspeed_on_cpu()", {"DS_ACCELERATOR": "cpu"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.cell("Engines, two processes", "neft-zoo sft --accelerate_config {name} --num_processes 2")
def test_two_processes_start_from_a_shipped_config(llama, tokenizer, tmp_path, name):
    if name == "zero3":
        pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    llama(hidden_size=128, tie_word_embeddings=False).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"instruction": f"Say {i}.", "input": "", "output": "yes"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Python imports a module of this name at its start, in every process.
    code, told = ON_CPU[name]
    telling = "import atexit, accelerate\natexit.register(lambda: print(accelerate.state.PartialState()))\n"
    (tmp_path / "sitecustomize.py").write_text(f"{code}\n{telling}")
    argv = f"--accelerate_config {name} --num_processes 2 --main_process_port 0 --config strategies/token_subspace"
    argv += " --model_name_or_path ./model --dataset_name rows.jsonl --output_dir out --max_steps 1 --bf16 false"
    argv += " --per_device_train_batch_size 2 --logging_steps 1 --save_strategy steps --save_steps 1"
    argv += " --mixed_precision no" + ("" if name == "zero3" else " --use_cpu true")
    tests = Path(__file__).parents[1]
    environment = {**os.environ, **told, "OMP_NUM_THREADS": "1"}
    paths = [str(tmp_path), str(tests.parent), str(tests), str(tests / "support"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, "-m", "neft_zoo", "sft", *argv.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    engine = {"multi_cpu": "MULTI_CPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"}[name]
    assert done.stdout.count(f"Distributed environment: DistributedType.{engine}") == 2, done.stdout
    assert done.stdout.count("Model and noise.json saved to out") == 1
    assert len(list((tmp_path / "out" / "checkpoint-1").glob("rng_state_*.pth"))) == 2
    assert (tmp_path / "out" / "noise.json").exists()
