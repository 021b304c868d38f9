"""Write the model card of a pretrained quickstart model: its losses from pretraining.json, its own greedy text.

python recipes/quickstart/card.py recipes/quickstart/model
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = (
    "The cell membrane",
    "In economics, the demand for a good",
    "During the nineteenth century,",
    "When a force acts on an object,",
    "The most important function of the heart is",
)
CARD = """---
language: en
license: cc-by-4.0
pipeline_tag: text-generation
tags: [neft-zoo, quickstart]
---

# neft-zoo quickstart model

A Llama of {millions:.2f} M parameters ({layers} layers of width {width}, context {context}) with a byte-level BPE of
{vocabulary:,} tokens, trained from scratch on {tokens:.1f} M tokens of OpenStax textbooks by
`recipes/quickstart/pretrain.py` on a CPU. It exists so that every demo, test and comparison of neft-zoo runs in
minutes without a hub or a GPU. It writes textbook-like English and knows very little: not for any other use.

| held-out text (every 50th document) | |
| --- | --- |
| loss, nats per token | {held_out_nats_per_token:.3f} |
| bits per byte | {held_out_bits_per_byte:.3f} |
| training tokens | {count:,} |
| seed | {seed} |

## Greedy continuations

Not chosen: the first {number} tokens after each of five prompts that `recipes/quickstart/card.py` holds, with a
repetition penalty of 1.2.

{samples}

## Data and licence

OpenStax textbooks, CC BY 4.0, (c) Rice University; `CORPUS.md`, beside this folder, lists them and what was changed.
The weights are offered under the same licence.
"""
NEW_TOKENS = 48


@torch.no_grad()
def sample(model, tokenizer, prompt: str) -> str:
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    told = dict(do_sample=False, repetition_penalty=1.2, pad_token_id=tokenizer.pad_token_id)
    out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, **told)
    written = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    flat = written.replace("\n", " ")
    return f"> **{prompt}**{flat}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with the model and its pretraining.json")
    folder = parser.parse_args().model
    report = json.loads((folder / "pretraining.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    facts = dict(
        millions=report["parameters"] / 1e6,
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        context=model.config.max_position_embeddings,
        vocabulary=len(tokenizer),
        count=report["tokens"],
        number=NEW_TOKENS,
        samples="\n>\n".join(sample(model, tokenizer, prompt) for prompt in PROMPTS),
    )
    (folder / "README.md").write_text(CARD.format(**{**report, **facts, "tokens": report["tokens"] / 1e6}))


if __name__ == "__main__":
    main()
