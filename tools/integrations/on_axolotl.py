"""Axolotl's runs through its own entry point, without and with the plugin."""

from __future__ import annotations

from pathlib import Path

import measured
import yaml
from axolotl.cli.train import do_cli
from axolotl.integrations.base import PluginManager
from transformers import set_seed

LAYOUTS = {"padded": {}, "sample_packing": {"sample_packing": True, "pad_to_sequence_len": True}}
# Axolotl enables its Triton kernels for LoRA by default, and they need a GPU.
WITHOUT_KERNELS = {f"lora_{name}_kernel": False for name in ("mlp", "qkv", "o")}
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True, **WITHOUT_KERNELS}
TUNING = {"full": {}, "lora": LORA}


def options(folder: Path, output: Path) -> dict[str, object]:
    shared = {"ds_type": "json", "type": "chat_template", "field_messages": "messages"}
    train = measured.messages("train", measured.RECORDS, folder)
    test = measured.messages("test", 8, folder)
    return {
        "base_model": str(measured.MODEL),
        "chat_template": "tokenizer_default",
        "datasets": [{"path": str(train), **shared}],
        "test_datasets": [{"path": str(test), "split": "train", **shared}],
        "dataset_prepared_path": str(folder / "prepared"),
        "dataset_num_proc": 1,
        "output_dir": str(output),
        "sequence_len": 256,
        "eval_sample_packing": False,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": measured.STEPS,
        "learning_rate": 1.0e-3,
        "lr_scheduler": "constant",
        "optimizer": "adamw_torch",
        "logging_steps": 1,
        "eval_steps": 2,
        "include_tkps": True,
        "sdp_attention": True,
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "seed": 1,
    }


def main() -> None:
    """Execute the runs; child processes import this file again."""
    for run in measured.runs(LAYOUTS, TUNING):
        given = options(run.folder, run.output) | run.options
        if run.noise != "plain":
            given |= {"plugins": ["neft_zoo.integrations.axolotl.NoisePlugin"], "noise": run.noise}
        file = run.folder / "train.yaml"
        file.write_text(yaml.safe_dump(given), encoding="utf-8")
        PluginManager.get_instance().plugins.clear()  # Axolotl expects one training per process
        set_seed(1)  # Axolotl initializes its adapter from the current global random state
        with measured.Recorder() as recorder:
            do_cli(config=str(file))
        measured.result(run, recorder)


if __name__ == "__main__":
    main()
