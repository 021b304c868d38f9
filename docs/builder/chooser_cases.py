"""The cases of the chooser, and the rules for their answers."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import product

import neft_zoo

RECORDS = {"few": "up to 1,000", "some": "1,000 to 20,000", "many": "more than 20,000"}
EPOCHS = {"1": "1", "2": "2", "3": "3", "5": "5"}
GOALS = {"instructions": "instructions and answers", "reasoning": "worked solutions"}
METHODS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA (4 bit)"}
PACKINGS = {"no": "no", "yes": "yes"}
MODELS = {
    "Llama 3": {
        "1B": "meta-llama/Llama-3.2-1B",
        "3B": "meta-llama/Llama-3.2-3B",
        "8B": "meta-llama/Meta-Llama-3-8B",
        "70B": "meta-llama/Meta-Llama-3-70B",
    },
    "Qwen 3": {"0.6B": "Qwen/Qwen3-0.6B-Base", "4B": "Qwen/Qwen3-4B-Base", "8B": "Qwen/Qwen3-8B-Base"},
    "Gemma 2": {"2B": "google/gemma-2-2b", "9B": "google/gemma-2-9b", "27B": "google/gemma-2-27b"},
    "Mistral": {"7B": "mistralai/Mistral-7B-v0.3"},
    "SmolLM2": {"135M": "HuggingFaceTB/SmolLM2-135M-Instruct", "1.7B": "HuggingFaceTB/SmolLM2-1.7B-Instruct"},
}
SCALED = ("Gemma 2",)  # the module multiplies embeddings, so alpha has another meaning
# Other frameworks are offered if the package has an integration for them.
FRAMEWORKS = {
    "trl": ("TRL in Python", "SFTTrainer"),
    "recipe": ("command line (TRL)", "SFTTrainer"),
    "loop": ("a custom training loop", "attach"),
    "unsloth": ("Unsloth", "enable"),
    "axolotl": ("Axolotl", "integrations.axolotl"),
    "swift": ("ms-swift", "integrations.swift"),
    "llamafactory": ("LLaMA-Factory", "integrations.llamafactory"),
}
BYTES = {"full": 16.0, "lora": 2.0, "qlora": 0.6}  # per parameter: weights, gradients, optimizer
CONTROLS = {"full": "weight_decay", "lora": "lora_dropout", "qlora": "lora_dropout"}
CONTROL_VALUES = {"weight_decay": "0.01,0.1", "lora_dropout": "0.1,0.3"}


@dataclass(frozen=True)
class Case:
    """A user's case, by the keys of the tables above."""

    records: str = "some"
    epochs: str = "3"
    goal: str = "instructions"
    family: str = "Llama 3"
    size: str = "8B"
    method: str = "qlora"
    packing: str = "no"
    framework: str = "trl"


def frameworks() -> dict[str, str]:
    """Return the frameworks that the package supports."""
    return {key: words for key, (words, needed) in FRAMEWORKS.items() if _has(needed)}


def _has(needed: str) -> bool:
    if needed in neft_zoo.__all__:
        return True
    package = importlib.util.find_spec("neft_zoo.integrations")
    return (
        package is not None
        and needed.startswith("integrations")
        and importlib.util.find_spec(f"neft_zoo.{needed}") is not None
    )


REASONS = {
    "reasoning": "Every token of a worked solution counts, and noise on all of them has not helped in published runs. "
    "Hiding part of the solution from the input did, on LLaMA-2-7B; in the runs here it lowers token accuracy on word "
    "problems. Judge by right answers.",
    "many": "One pass over so many records leaves little to overfit: train plainly. Noise is an experiment here, and "
    "the comparison below runs it.",
    "scaled": "This model multiplies its embeddings, so alpha means something else on it; noise in proportion to each "
    "token's embedding means the same on every model.",
    "once": "One epoch overfits little: expect a small effect, and compare.",
    "several": "Records that are seen several times are memorized, and noise delays that. So does stopping "
    "earlier, which is why the comparison has shorter plain runs.",
}


def noise_for(case: Case) -> tuple[str, str]:
    """Return the key of the noise to start with, and the key of the reason."""
    if case.goal == "reasoning":
        return "masked_thought", "reasoning"
    if case.epochs == "1" and case.records == "many":
        return "none", "many"
    if case.family in SCALED:
        return "token_relative", "scaled"
    return "neft_uniform", "once" if case.epochs == "1" else "several"


# In YAML, in Python, on the command line; the strategies to compare, and their grid.
NOISES = {
    "none": (" none", '"none"', "none", "neft_uniform", "neft_uniform.alpha=5,15"),
    "masked_thought": (
        "\n  name: masked_thought",
        '"masked_thought"',
        "masked_thought",
        "masked_thought,neft_uniform",
        "neft_uniform.alpha=5,15",
    ),
} | {
    name: (
        f"\n  name: {name}\n  {argument}: {value}",
        f'{{\n        "name": "{name}",\n        "{argument}": {value},\n    }}',
        f'{{"name": "{name}", "{argument}": {value}}}',
        name,
        f"{name}.{argument}={values}",
    )
    for name, argument, value, values in (
        ("neft_uniform", "alpha", "5", "5,15"),
        ("token_relative", "rho", "0.1", "0.05,0.2"),
    )
}
NOISE_SLOTS = ("NOISE_YAML", "NOISE_PYTHON", "NOISE_FLAG", "COMPARED", "GRID")


def parameters(size: str) -> float:
    """Return a size in billions of parameters."""
    return float(size[:-1]) / (1 if size.endswith("B") else 1000)


def slots(case: Case) -> dict[str, dict[str, str]]:
    """Return the placeholder values of a case's texts, by what they depend on: see `DEPENDS`."""
    billions, knob = parameters(case.size), CONTROLS[case.method]
    batch, accumulation = (8, 2) if billions < 2 else (4, 4) if billions < 10 else (1, 16)
    rate = "2.0e-5" if case.method == "full" else "2.0e-4" if billions < 30 else "1.0e-4"
    lengths = "1/2,1" if case.epochs in ("1", "2") else f"1/{case.epochs},2/{case.epochs},1"
    return {
        "noise_slots": dict(zip(NOISE_SLOTS, NOISES[noise_for(case)[0]], strict=True)),
        "model_slots": {
            "MODEL": MODELS[case.family][case.size],
            "BATCH": str(batch),
            "ACCUMULATION": str(accumulation),
        },
        "rate_slots": {"RATE": rate},
        "epoch_slots": {"EPOCHS": case.epochs, "LENGTHS": lengths},
        "control_slots": {"CONTROL": knob, "CONTROL_GRID": f"{knob}.{knob}={CONTROL_VALUES[knob]}"},
    }


def memory(case: Case) -> str:
    """Return the approximate memory for weights, gradients and optimizer."""
    gigabytes = parameters(case.size) * BYTES[case.method]
    about = f"{gigabytes:,.0f}" if gigabytes >= 10 else f"{gigabytes:.1f}"
    many = "; more than one GPU: see the guide on several devices" if gigabytes > 75 else ""
    return f"About {about} GB for weights, gradients and optimizer, and more for activations{many}."


def control(case: Case) -> str:
    """Return the free control of a case."""
    free = "Fewer epochs even save compute" if case.epochs != "1" else "Half an epoch costs half"
    knob = "more <code>lora_dropout</code>" if case.method != "full" else "<code>weight_decay</code>"
    return f"{free}; {knob} costs nothing. Both are rows of the comparison: prefer them if they do as well."


def cases() -> list[Case]:
    """Return all cases."""
    models = [(family, size) for family, sizes in MODELS.items() for size in sizes]
    return [
        Case(records, epochs, goal, family, size, method, packing, framework)
        for records, epochs, goal, (family, size), method, packing, framework in product(
            RECORDS, EPOCHS, GOALS, models, METHODS, PACKINGS, frameworks()
        )
    ]
