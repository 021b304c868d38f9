"""Time greedy answers in length-sorted batches against one prompt at a time.

python tests/benchmarks/generation.py [--model FOLDER] [--prompts 64] [--batch_size 16] [--max_new_tokens 32]
python tests/benchmarks/generation.py --cache --max_new_tokens 512      # against transformers' own cache

Both sides answer the same prompts in the same run; the end is blocked, so that both write the same number of tokens.
"""

import argparse
import random
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicLayer

from neft_zoo.config import recipe
from neft_zoo.evaluation import key_cache
from neft_zoo.evaluation.generation import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=recipe.folder() / "quickstart" / "model")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_new_tokens", type=int, default=32)
    parser.add_argument("--cache", action="store_true")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(options.model),
        AutoTokenizer.from_pretrained(options.model),
    )
    model.to(device)
    draw = random.Random(0)
    prompts = [
        [draw.randrange(100, len(tokenizer)) for _ in range(draw.randint(8, 96))] for _ in range(options.prompts)
    ]
    seconds = {}
    settings = dict(
        max_new_tokens=options.max_new_tokens, min_new_tokens=options.max_new_tokens, repetition_penalty=1.2
    )
    generate(model, tokenizer, prompts[:2], batch_size=2, **settings)  # warm up
    sides = {"transformers' cache": options.batch_size} if options.cache else {"one at a time": 1}
    ours = key_cache.RoomyLayer
    for side, size in {**sides, "ours": options.batch_size}.items():
        key_cache.RoomyLayer = DynamicLayer if options.cache and side != "ours" else ours
        start = time.perf_counter()
        generate(model, tokenizer, prompts, batch_size=size, **settings)
        seconds[side] = time.perf_counter() - start
    other, ratio = next(iter(sides)), seconds[next(iter(sides))] / seconds["ours"]
    about = f"{options.prompts} prompts on {device}, batches of {options.batch_size}"
    print(f"{about}: {ratio:.2f} x the throughput of {other}")


if __name__ == "__main__":
    main()
