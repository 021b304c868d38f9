"""`neft-zoo sft` through accelerate launch: what goes where, what is refused, and that two processes really start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from neft_zoo import NoiseError
from neft_zoo.cli import main
from neft_zoo.launch import config_names, find_config, split, start


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
        ("--num_processes 2 --config quikstart", "near: quickstart"),
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


@pytest.mark.slow
def test_two_processes_start_from_a_shipped_config(llama, tokenizer, tmp_path):
    llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"instruction": f"Say {i}.", "input": "", "output": "yes"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = "--accelerate_config multi_cpu --num_processes 2 --main_process_port 0 --config strategies/neft_uniform"
    argv += " --model_name_or_path ./model --dataset_name rows.jsonl --output_dir out --max_steps 1 --use_cpu true"
    argv += " --per_device_train_batch_size 2 --logging_steps 1 --save_strategy steps --save_steps 1"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "neft_zoo", "sft", *argv.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Model and noise.json saved to out") == 1
    assert len(list((tmp_path / "out" / "checkpoint-1").glob("rng_state_*.pth"))) == 2
    assert (tmp_path / "out" / "noise.json").exists()
