"""Every shipped recipe is dry-run on a tiny model of its architecture and a few rows of its format."""

import json
import re
import warnings

import pytest
from selection import quick
from transformers import AutoTokenizer

from neft_zoo import registry
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.config.options import read_options

SHIPPED = [name for name in recipe.names() if name != "paper/base"]
ROWS = {
    "instructions": [{"instruction": f"Say {i}.", "input": "", "output": "yes " * (i + 1)} for i in range(8)],
    "conversations": [
        {"conversations": [{"from": "human", "value": f"Say {i}."}, {"from": "gpt", "value": "yes"}]} for i in range(8)
    ],
}


def rows_for(values):
    """Return rows in the format of the recipe's own data."""
    return ROWS["conversations" if "ShareGPT" in values["dataset_name"] else "instructions"]


def is_known(warning):
    """Return whether a warning is of how a library uses Python, or of our small model, and not of a recipe."""
    ours = "is louder than the embeddings" in str(warning.message)
    return ours or issubclass(warning.category, ResourceWarning | ImportWarning | PendingDeprecationWarning)


# One of every folder, and those whose strategy enters by another way.
TRAINED = """quickstart controls/label_smoothing engines/ddp engines/qlora_fsdp gpu/dolly results/dolly_packed
    paper/llama2-7b-sharegpt paper/qlora-llama2-7b-alpaca strategies/flat_lora strategies/lat strategies/noisy_tune
    strategies/token_frequency"""
# passes/test_vision.py trains what needs a model that reads images.
READ_TEXT = [name for name in SHIPPED if name != "strategies/visual_noise"]


@pytest.mark.parametrize("name", quick(READ_TEXT, *TRAINED.split()))
def test_recipe_trains(name, llama, tokenizer, tmp_path, monkeypatch, capfd):
    """And no library warns of what a shipped recipe says."""
    monkeypatch.chdir(tmp_path)
    values = recipe.load(name).values
    argv = ["sft", "--config", name, "--output_dir", "out", "--max_steps", "2", "--use_cpu", "true"]
    argv += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1", "--disable_tqdm", "true"]
    argv += ["--eval_strategy", "no", "--save_strategy", "no", "--logging_steps", "1"]
    if name.startswith(("paper/", "gpu/", "results/smollm2")):  # their models are not shipped
        llama(hidden_size=64).save_pretrained("model")
        tokenizer.save_pretrained("model")
        argv += ["--model_name_or_path", "./model"]
    if name.startswith("paper/"):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_for(values)))
        argv += ["--dataset_name", "rows.jsonl", "--lr_scheduler_type", "constant"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(argv) == 0
    assert [f"{each.category.__name__}: {each.message}" for each in caught if not is_known(each)] == []
    remarks = [line for line in capfd.readouterr().err.splitlines() if re.search(r"(?i)warn|deprecat|\[\w+\|", line)]
    assert remarks == []
    saved = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert registry.make({"name": saved["name"], **saved["arguments"]}) == registry.make(values["noise"])
    weights = "adapter_model.safetensors" if values["use_peft"] else "model.safetensors"
    assert (tmp_path / "out" / weights).exists()


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_is_read(name, tmp_path):
    values = recipe.load(name).values
    if name.startswith(("paper/", "gpu/", "results/smollm2")):  # on the hub, or made by `make real-model`
        values = {**values, "model_name_or_path": str(tmp_path), "dataset_name": str(tmp_path)}
    options = read_options({**values, "use_cpu": True, "bf16": False, "output_dir": str(tmp_path / "out")})
    assert registry.make(options.training.noise) == registry.make(values["noise"])


def test_the_base_recipe_says_what_every_option_does():
    lines = (recipe.folder() / "base.yaml").read_text().splitlines()
    options = [line for line in lines if line and not line.startswith("#") and not line.endswith(":")]
    assert len(options) > 30 and all("  # " in line for line in options)


@pytest.mark.parametrize("name", registry.builtin_names())
def test_every_entry_has_a_short_recipe(name):
    text = (recipe.folder() / "strategies" / f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 10 and text.startswith("# ") and "\nextends: base\n" in text
    values = recipe.load(name).values
    noise = values["noise"]
    assert registry.make(noise).name == name


def test_instructions_become_prompt_and_completion():
    from neft_zoo.config.data import alpaca_record

    plain = alpaca_record({"instruction": "Add.", "input": "", "output": "3"})
    assert plain["completion"] == "3" and "### Input" not in plain["prompt"]
    assert plain["prompt"].endswith("### Instruction:\nAdd.\n\n### Response:\n")
    assert (
        "### Input:\n1 2\n\n### Response"
        in alpaca_record({"instruction": "Add.", "input": "1 2", "output": "3"})["prompt"]
    )


def test_the_shipped_tokenizer_teaches_the_stop_token():
    tokenizer = AutoTokenizer.from_pretrained(recipe.folder() / "quickstart" / "model")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    told = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    answer = [i for i, kept in zip(told["input_ids"], told["assistant_masks"], strict=True) if kept]
    assert tokenizer.decode(answer) == "Hello<|endoftext|>"
