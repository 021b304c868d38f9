"""Cut the records of the site's comparisons: short ones, so that many runs fit on two CPU cores.

    python recipes/results/prepare_data.py --gsm8k_train gsm8k_train.jsonl.gz --gsm8k_test gsm8k_test.jsonl.gz
    python recipes/results/prepare_data.py --dolly dolly15k.jsonl.gz
    python recipes/results/prepare_data.py --openstax openstax_text.jsonl.gz --xstest xstest.jsonl.gz \\
        --ifeval ifeval541.jsonl.gz

`dolly` is the short part of the quickstart's records, `gsm8k` the short problems of the official splits, from JSON
lines with `prompt` and `completion`; `smollm2` the short records of databricks-dolly-15k that have no context, under
the tokenizer in `build/smollm2`, which `make real-model` unpacks. They are written in TRL's conversational
prompt-completion format. `general` is a passage from each of evenly spread sections of textbooks; `safety` and
`instructions` are complete.
"""

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "quickstart"
PROMPT_TOKENS, COMPLETION_TOKENS = 64, {"dolly": 48, "gsm8k": 64}
TRAIN_RECORDS, TEST_RECORDS = 1280, 192
PASSAGES = 200
# SmolLM2 is 50 times larger than the shipped model; its test records are two halves of 64.
SMOLLM2 = HERE.parents[1] / "build" / "smollm2"
SMOLLM2_PROMPT, SMOLLM2_COMPLETION = range(1, 33), range(12, 49)
SMOLLM2_TEST = 128


def lines(path: Path) -> list[dict]:
    """Return the records of a file."""
    text = gzip.open(path, "rt", encoding="utf-8").read() if path.suffix == ".gz" else path.read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def read(path: Path) -> list[dict]:
    """Return the records of a file, conversations as they are and plain texts as one turn each."""
    return [conversation(record) for record in lines(path)]


def conversation(record: dict) -> dict:
    if not isinstance(record["prompt"], str):
        return record
    turns = {"prompt": "user", "completion": "assistant"}
    return {key: [{"role": role, "content": record[key].strip()}] for key, role in turns.items()}


def write(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    partial.replace(path)
    print(f"{path}: {len(records)} records")


def general(path: Path) -> list[dict]:
    """Return passages of 60 to 110 words in ASCII, the first of a section, from evenly spread sections."""
    passages = []
    for section in lines(path):
        paragraphs = (
            text for text in section["text"].split("\n") if 60 <= len(text.split()) <= 110 and text.isascii()
        )
        text = next(paragraphs, None)
        if text is not None and section["title"] != "Preface":
            passages.append({"text": text, "book": section["book"], "title": section["title"]})
    return [passages[i * len(passages) // PASSAGES] for i in range(PASSAGES)]


def without_context(records: list[dict]) -> list[dict]:
    """Return the short records without context, each prompt once, in an order that depends on the prompt alone."""
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    chosen: dict[str, dict] = {}
    for record in records:
        prompt, completion = record["prompt"].strip(), record["completion"].strip()
        if record["has_context"] or "\N{REPLACEMENT CHARACTER}" in prompt + completion:
            continue
        if len(tokenizer(prompt).input_ids) not in SMOLLM2_PROMPT:
            continue
        if len(tokenizer(completion).input_ids) in SMOLLM2_COMPLETION:
            # Prompts that differ only in case, punctuation and spacing count as equal.
            chosen.setdefault(re.sub(r"\W+", " ", prompt.lower()).strip(), record)
    return [chosen[key] for key in sorted(chosen, key=lambda key: hashlib.sha256(key.encode()).hexdigest())]


def write_smollm2(dolly: Path) -> None:
    """Write the records of the real model."""
    records = without_context(lines(dolly))
    for split, part in (("test", records[:SMOLLM2_TEST]), ("train", records[SMOLLM2_TEST:][:TRAIN_RECORDS])):
        write(HERE / "smollm2" / f"{split}.jsonl", [conversation(record) for record in part])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("gsm8k_train", "gsm8k_test", "dolly", "openstax", "xstest", "ifeval"):
        parser.add_argument(f"--{name}", type=Path, help="gzipped JSON lines")
    args = parser.parse_args()
    if args.openstax:
        write(HERE / "general" / "openstax.jsonl", general(args.openstax))
    if args.xstest:
        write(HERE / "safety" / "xstest.jsonl", lines(args.xstest))
    if args.ifeval:
        write(HERE / "instructions" / "ifeval.jsonl", lines(args.ifeval))
    if args.dolly:
        write_smollm2(args.dolly)
    if args.gsm8k_train and args.gsm8k_test:
        write_conversations(args)


def write_conversations(args: argparse.Namespace) -> None:
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "model")
    sources = {
        "dolly": {split: QUICKSTART / "data" / f"{split}.jsonl" for split in ("train", "test")},
        "gsm8k": {"train": args.gsm8k_train, "test": args.gsm8k_test},
    }
    for name, splits in sources.items():
        limits = {"prompt": PROMPT_TOKENS, "completion": COMPLETION_TOKENS[name]}

        def short(record: dict, limits: dict[str, int] = limits) -> bool:
            return all(len(tokenizer(record[key][0]["content"]).input_ids) <= most for key, most in limits.items())

        for split, path in splits.items():
            most = TRAIN_RECORDS if split == "train" else TEST_RECORDS
            write(HERE / name / f"{split}.jsonl", [record for record in read(path) if short(record)][:most])


if __name__ == "__main__":
    main()
