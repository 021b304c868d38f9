# python recipes/integrations/unsloth_sft.py, on a GPU
# isort: off
from unsloth import FastLanguageModel  # before trl, transformers and peft, which it patches
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

from neft_zoo import enable

model, tokenizer = FastLanguageModel.from_pretrained("unsloth/Qwen3-0.6B", max_seq_length=2048, load_in_4bit=True)
# Unsloth's own checkpointing is reentrant, which strategies of several passes cannot use; True selects torch's.
model = FastLanguageModel.get_peft_model(model, r=16, use_gradient_checkpointing=True)
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(output_dir="runs/unsloth", max_steps=100),
    train_dataset=load_dataset("trl-lib/Capybara", split="train"),
    processing_class=tokenizer,
)
enable(trainer, "neft_uniform").train()
