"""Cut the quickstart's train and test records out of databricks-dolly-15k.

    python recipes/quickstart/prepare_data.py --dolly dolly15k.jsonl.gz

Reads JSON lines with `prompt`, `completion` and `has_context`; writes `data/train.jsonl` and `data/test.jsonl` in
TRL's conversational prompt-completion format.
"""

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

HERE = Path(__file__).parent
TEST_RECORDS = 512
PROMPT_TOKENS, COMPLETION_TOKENS = range(1, 41), range(12, 89)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bare(prompt: str) -> str:
    """Return a prompt without case, punctuation and spacing: prompts that differ in nothing else are the same."""
    return re.sub(r"\W+", " ", prompt.lower()).strip()


def select(records: list[dict], tokenizer: PreTrainedTokenizerBase) -> list[dict]:
    """Return the short records without context, each prompt once, in an order that depends on the prompt alone."""
    chosen: dict[str, dict] = {}
    for record in records:
        prompt, completion = record["prompt"].strip(), record["completion"].strip()
        if record["has_context"] or "\N{REPLACEMENT CHARACTER}" in prompt + completion:
            continue
        if len(tokenizer(prompt).input_ids) not in PROMPT_TOKENS:
            continue
        if len(tokenizer(completion).input_ids) not in COMPLETION_TOKENS:
            continue
        chosen.setdefault(bare(prompt), {"prompt": prompt, "completion": completion})
    return [chosen[key] for key in sorted(chosen, key=digest)]


def write(path: Path, records: list[dict]) -> str:
    """Write records as JSON lines and return the file's sha256."""
    lines = (
        {
            "prompt": [{"role": "user", "content": record["prompt"]}],
            "completion": [{"role": "assistant", "content": record["completion"]}],
        }
        for record in records
    )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return digest(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dolly", type=Path, required=True, help="gzipped JSON lines")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "model", help="folder of the tokenizer")
    parser.add_argument("--output", type=Path, default=HERE / "data")
    args = parser.parse_args()
    with gzip.open(args.dolly, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    chosen = select(records, AutoTokenizer.from_pretrained(args.tokenizer))
    args.output.mkdir(parents=True, exist_ok=True)
    for name, part in (("test", chosen[:TEST_RECORDS]), ("train", chosen[TEST_RECORDS:])):
        path = args.output / f"{name}.jsonl"
        print(f"{path}: {len(part)} records, sha256 {write(path, part)}")


if __name__ == "__main__":
    main()
