"""LLaMA-Factory's runs through its own entry point and through `neft-zoo run llamafactory`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import measured
import yaml
from llamafactory.train.tuner import run_exp

from neft_zoo.cli.main import main as neft_zoo

LAYOUTS = {
    "padded": {},
    "packing": {"packing": True},
    "neat_packing": {"neat_packing": True},
}
TUNING = {"full": {"finetuning_type": "full"}, "lora": {"finetuning_type": "lora", "lora_target": "all"}}


def options(folder: Path, output: Path) -> dict[str, object]:
    columns = {"messages": "messages"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    sets = {
        split: {
            "file_name": str(measured.messages(split, count, folder)),
            "formatting": "sharegpt",
            "columns": columns,
            "tags": tags,
        }
        for split, count in (("train", measured.RECORDS), ("test", 8))
    }
    (folder / "dataset_info.json").write_text(json.dumps(sets), encoding="utf-8")
    return {
        "model_name_or_path": str(measured.MODEL),
        "stage": "sft",
        "do_train": True,
        "dataset": "train",
        "eval_dataset": "test",
        "dataset_dir": str(folder),
        "output_dir": str(output),
        "cutoff_len": 256,
        "per_device_train_batch_size": 4,
        "max_steps": measured.STEPS,
        "learning_rate": 1.0e-3,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "include_num_input_tokens_seen": True,
        "use_reentrant_gc": False,
        "report_to": "none",
        "seed": 1,
    }


def main() -> None:
    """Execute the runs; child processes import this file again."""
    for run in measured.runs(LAYOUTS, TUNING):
        given = options(run.folder, run.output) | run.options
        file = run.folder / "train.yaml"
        file.write_text(yaml.safe_dump(given), encoding="utf-8")
        with measured.Recorder() as recorder:
            if run.noise == "plain":
                run_exp(given)
            elif neft_zoo(["run", "llamafactory", str(file), "--noise", run.noise]):
                sys.exit(1)
        measured.result(run, recorder)


if __name__ == "__main__":
    main()
