"""ms-swift's runs through its own entry point, without and with a plugin file.

It refuses packing without flash attention, which needs a GPU. The check is removed here, since the packed rows are the
same, and sdpa also separates the documents by their positions.
"""

from __future__ import annotations

from pathlib import Path

import measured
from swift.arguments.sft_args import SftArguments
from swift.pipelines import sft_main
from swift.trainers import TrainerFactory

LAYOUTS = {"padded": {}, "padding_free": {"padding_free": True}, "packing": {"packing": True}}
TUNING = {tuner: {"tuner_type": tuner} for tuner in ("full", "lora")}
# Template of the shipped model; ms-swift finds templates only by name.
TEMPLATE = """
from swift.template.register import TemplateMeta, register_template
register_template(TemplateMeta("quickstart", prefix=[], prompt=["<|user|>{{QUERY}}<|assistant|>"], chat_sep=None,
                               suffix=["<|endoftext|>"]), exist_ok=True)
"""
NOISE = """
from neft_zoo.integrations.swift import register
register("%s")
"""


def without_flash_attention(arguments: SftArguments) -> None:
    arguments.padding_free = arguments.padding_free or arguments.packing


def options(run: measured.Run, plugin: Path) -> dict[str, object]:
    return {
        "model": measured.MODEL,
        "model_type": "llama",
        "template": "quickstart",
        "external_plugins": plugin,
        "dataset": measured.messages("train", measured.RECORDS, run.folder),
        "val_dataset": measured.messages("test", 8, run.folder),
        "output_dir": run.output,
        "add_version": False,
        "max_length": 256,
        "torch_dtype": "float32",
        "attn_impl": "sdpa",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": measured.STEPS,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "eval_steps": 2,
        "save_steps": measured.STEPS,
        "gradient_checkpointing_kwargs": '{"use_reentrant": false}',
        "dataloader_num_workers": 0,
        "include_num_input_tokens_seen": True,
        "check_model": False,
        "report_to": "none",
        **run.options,
    }


def main() -> None:
    """Execute the runs; child processes import this file again."""
    SftArguments._check_padding_free = without_flash_attention
    own = vars(TrainerFactory)["get_trainer_cls"]
    for run in measured.runs(LAYOUTS, TUNING):
        plugin = run.folder / "noise.py"
        plugin.write_text(TEMPLATE + ("" if run.noise == "plain" else NOISE % run.noise), encoding="utf-8")
        given = options(run, plugin)
        TrainerFactory.get_trainer_cls = own
        with measured.Recorder() as recorder:
            sft_main([text for key, value in given.items() for text in (f"--{key}", str(value))])
        measured.result(run, recorder)


if __name__ == "__main__":
    main()
