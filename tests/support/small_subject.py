"""The shipped model with a few records, as a subject of measures."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from neft_zoo.config import recipe
from neft_zoo.evaluation import prepare
from neft_zoo.evaluation.shipped import shipped_records
from neft_zoo.training.sft_config import NoiseSFTConfig

MODEL = recipe.folder() / "quickstart" / "model"


def load():
    return AutoModelForCausalLM.from_pretrained(MODEL)


def arguments(folder, **settings):
    quiet = dict(report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False)
    return NoiseSFTConfig(output_dir=str(folder), per_device_eval_batch_size=8, **{**quiet, **settings})


def subject_of(model, folder, **settings):
    args = arguments(folder, **settings)
    records = shipped_records("gsm8k", 6)
    return prepare(model, AutoTokenizer.from_pretrained(MODEL), args, {"train": records, "test": records})


def adapter(model):
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return adapted.eval()
