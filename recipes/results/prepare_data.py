"""Cut the records of the site's comparisons: short ones, so that many runs fit on two CPU cores.

    python recipes/results/prepare_data.py --gsm8k_train gsm8k_train.jsonl.gz --gsm8k_test gsm8k_test.jsonl.gz

`dolly` is the short part of the quickstart's records, `gsm8k` the short problems of the official splits, from JSON
lines with `prompt` and `completion`. Both are written in TRL's conversational prompt-completion format.
"""

import argparse
import gzip
import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "quickstart"
PROMPT_TOKENS, COMPLETION_TOKENS = 64, {"dolly": 48, "gsm8k": 64}
TRAIN_RECORDS, TEST_RECORDS = 1280, 192


def read(path: Path) -> list[dict]:
    """Return the records of a file, conversations as they are and plain texts as one turn each."""
    text = gzip.open(path, "rt", encoding="utf-8").read() if path.suffix == ".gz" else path.read_text("utf-8")
    return [conversation(json.loads(line)) for line in text.split("\n") if line]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k_train", type=Path, required=True, help="gzipped JSON lines")
    parser.add_argument("--gsm8k_test", type=Path, required=True, help="gzipped JSON lines")
    args = parser.parse_args()
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
