"""Small real models and data: everything is built here or shipped, nothing is fetched."""

import copy
import gc
import json
from functools import cache

import accelerate.utils.imports
import datasets
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from short_run import short_run
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from neft_zoo import NoiseSFTConfig, redaction
from neft_zoo.cli.main import main
from neft_zoo.config import recipe

torch.set_num_threads(1)
datasets.disable_progress_bars()
# accelerate reads the metadata of a package each time that it asks whether it is installed, several times a training.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/imports.py
accelerate.utils.imports._is_package_available = cache(accelerate.utils.imports._is_package_available)
for device in (torch.cuda, torch.xpu, torch.mtia):
    # At every seed of a device that is not there torch formats the whole stack, to name it if the device fails later.
    # https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py
    if not device.is_available():
        device.manual_seed_all = lambda seed: None
QUICKSTART = recipe.folder() / "quickstart"


@pytest.fixture(scope="module", autouse=True)
def imports_out_of_the_garbage_collectors_sight():
    """Freeze what there is: accelerate collects garbage after every run, among all objects of every import.

    https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/memory.py
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch):
    """Forget what a test's command has learned to be secret, and the width of the terminal that pytest-xdist tells."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(redaction, "_known", set(redaction._known))


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(QUICKSTART / "model")


_made = {}


@pytest.fixture
def llama(tokenizer):
    """Return a maker of equal tiny Llamas; those that are asked for again are copies, which take half the time."""

    def make(seed=0, **config):
        asked = seed, repr(config)
        if asked not in _made:
            torch.manual_seed(seed)
            _made[asked] = build(config), torch.get_rng_state()
        model, state = _made[asked]
        torch.set_rng_state(state)
        return copy.deepcopy(model)

    def build(config):
        numbers = dict(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
        return LlamaForCausalLM(LlamaConfig(**{**numbers, **config}))

    return make


@pytest.fixture(scope="session")
def records():
    """Return 32 conversations of different lengths."""
    words = "the cell divides when its energy is enough to copy what it holds".split()
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"Question {i}: " + " ".join(words[: i % 7 + 1])}],
                "completion": [{"role": "assistant", "content": " ".join(words[: i % 11 + 1])}],
            }
            for i in range(32)
        ]
    )


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory, tokenizer):
    """Return a recipe: one step of 4 records on a two-layer Llama."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    for split, count in (("train", 8), ("test", 4)):
        lines = (QUICKSTART / "data" / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "data" / f"{split}.jsonl").write_text("".join(lines[:count]))
    options = dict(extends="quickstart", max_steps=1, per_device_train_batch_size=4, warmup_steps=0, max_length=48)
    options |= dict(model_name_or_path=str(folder / "model"), dataset_name=str(folder / "data"))
    options |= dict(eval_strategy="no", save_strategy="no", output_dir=str(folder / "out"), disable_tqdm=True)
    (folder / "tiny.yaml").write_text(json.dumps(options))
    return folder / "tiny.yaml"


@pytest.fixture
def config(tmp_path):
    """Return a maker of trainer arguments: 4 steps of 4 records, every step logged."""

    def make(**settings):
        defaults = short_run(tmp_path / "out", max_steps=4)
        return NoiseSFTConfig(**{**defaults, **settings})

    return make


IDS = torch.arange(5, 29).view(4, 6)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}


def gradients(model):
    """Return the gradients of a model by name, and clear them."""
    found = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def weights(model):
    """Return a copy of all weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    """Return whether two sets of weights are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def apart(one, other):
    """Return the largest difference of two sets of weights."""
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def moved(before, after):
    """Return what was added to each weight that is no longer the same."""
    return {k: (after[k] - before[k]).double().numpy() for k in before if not torch.equal(after[k], before[k])}


def with_lora(model, **settings):
    """Return the model with an adapter whose B is not 0."""
    settings = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(model, LoraConfig(**settings))
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.1
    return model


def remove_attribute(owner, name, monkeypatch):
    """Take an attribute away, from the object or its class."""
    owner = owner if name in vars(owner) else type(owner)
    monkeypatch.delattr(owner, name)


# Arguments that fit an entry to the tiny Llama and make what it does large enough to be seen.
FITTING = {
    "cat": {"steps": 2, "size": 0.05, "where": "real"},
    "cutoff_feature": {"ratio": 0.3},
    "cutoff_span": {"ratio": 0.3},
    "cutoff_token": {"ratio": 0.3},
    "embed_mix": {"a": 5},
    "fgm": {"eps": 0.3},
    "hidden_cut": {"ratio": 0.3},
    "hype": {"size": 0.01},
    "lat": {"eps": 1.0, "steps": 2, "size": 0.5, "layers": [1]},
    "lnsr": {"size": 1.0, "weight": 100},
    "masked_thought": {"p": 0.4},
    "pdr": {"eps": 0.1, "weight": 10},
    "r3f": {"eps": 0.02},
    "smart": {"radius": 0.1, "start": 0.01, "size": 1.0},
    "noisefit": {"size": 5.0},
    "token_subspace": {"k": 4},
    "vaccine": {"rho": 0.3},
    "vat": {"radius": 0.3, "start": 0.01},
}


def fitting(name):
    """Return an entry as `noise=` takes it, with arguments that fit the tiny Llama."""
    return {"name": name, **FITTING.get(name, {})}


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Return what runs a command in a folder of its own and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        status = main([str(argument) for argument in argv])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run
