"""The chooser's answers, trained through their frameworks, on the shipped model and data.

An answer is run as its reader would run it, by a shell or Python in a folder with the data. Only its model, its
precision (for a CPU) and the number of steps are changed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import measured

sys.path.insert(0, str(measured.ROOT / "docs"))
from builder import chooser, chooser_cases  # noqa: E402

# Axolotl enables its Triton kernels for LoRA by default, and they need a GPU; its model needs a padding token.
AXOLOTL = "bf16: false\nmax_steps: 2\nlora_mlp_kernel: false\nlora_qkv_kernel: false\nlora_o_kernel: false\n"
AXOLOTL += "special_tokens: {pad_token: <|endoftext|>}"
# ms-swift finds templates only by name, and refuses packing without flash attention, which needs a GPU.
SWIFT = """from swift.arguments.sft_args import SftArguments
from swift.template.register import TemplateMeta, register_template

SftArguments._check_padding_free = lambda arguments: setattr(arguments, "padding_free", arguments.packing)
register_template(TemplateMeta("quickstart", prefix=[], prompt=["<|user|>{{QUERY}}<|assistant|>"], chat_sep=None,
                               suffix=["<|endoftext|>"]))
from neft_zoo"""
SWIFT_OPTIONS = "--max_steps 2 --model_type llama --template quickstart --check_model false --torch_dtype float32"
ON_A_CPU = {
    "axolotl": {"bf16: true": AXOLOTL, "sequence_len: 2048": "sequence_len: 256"},  # so that 64 records fill rows
    "llamafactory": {"bf16: true": "bf16: false\nmax_steps: 2\nlogging_steps: 1"},
    "unsloth": {"bf16=True,": 'bf16=False, use_cpu=True, max_steps=2, report_to="none",'},
    "swift": {"from neft_zoo": SWIFT, "flash_attn": "sdpa", "--output_dir": f"{SWIFT_OPTIONS} --output_dir"},
}
MODELS = {name for sizes in chooser_cases.MODELS.values() for name in sizes.values()}


def small(code: str, framework: str) -> str:
    """Return an answer that trains the shipped model on a CPU."""
    code = re.sub("|".join(map(re.escape, MODELS)), str(measured.MODEL), code)
    for text, other in ON_A_CPU[framework].items():
        code = code.replace(text, other)
    return code


def trains(case: chooser.Case, python: Path, log: Path) -> bool:
    """Return whether a case's answer trains and records its noise."""
    lines = (measured.DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()[:64]
    records = [{key: each[key][0]["content"] for key in ("prompt", "completion")} for each in map(json.loads, lines)]
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(measured.ROOT)}
    environment |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
    environment |= {"UNSLOTH_COMPILE_DISABLE": "1", "UNSLOTH_FORCE_CPU": "1"}
    with tempfile.TemporaryDirectory() as folder, log.open("a", encoding="utf-8") as file:
        data = Path(folder) / "my-data.jsonl"
        data.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
        code = small(chooser.answer(case, []).code, case.framework)
        command = [str(python), "-c", code] if case.framework == "unsloth" else ["sh", "-ec", code]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        noted = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("noise.json")]
    return (
        not done.returncode and bool(noted) and all(each["name"] == chooser_cases.noise_for(case)[0] for each in noted)
    )


def told(framework: str, python: Path, log: Path) -> str:
    """Return how many of a framework's answers train, over all tunings and packings."""
    cases = [
        chooser.Case(framework=framework, method=method, packing=packing, epochs="1")
        for method, packing in product(chooser_cases.METHODS, chooser_cases.PACKINGS)
    ]
    good = sum(trains(case, python, log) for case in cases)
    return f"{good} of {len(cases)} of the chooser's answers train" + ("" if good == len(cases) else ": WRONG")
