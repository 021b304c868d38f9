"""`neft-zoo generate`: outputs in AlpacaEval's format, from every kind of prompt, whole after a kill."""

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.evaluation import generation
from neft_zoo.judging import generating
from neft_zoo.judging.prompts import Prompt, from_file, from_split

MODEL = recipe.folder() / "quickstart" / "model"
CHAT = {"prompt": [{"role": "user", "content": "Hi?"}], "completion": [{"role": "assistant", "content": "Yes."}]}


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        status = main(["generate", str(MODEL), "--config", "quickstart", *map(str, argv)])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_answers_the_test_split_greedily_in_alpaca_evals_format(cli, tmp_path, model, tokenizer):
    argv = "--output o.json --limit 5 --max_new_tokens 12 --batch_size 2 --generator mine".split()
    status, out, error = cli(*argv)
    assert status == 0 and out.strip() == "o.json", error
    records = json.loads((tmp_path / "o.json").read_text())
    assert len(records) == 5 and all(
        record.keys() == {"instruction", "output", "generator", "dataset"} for record in records
    )
    assert {(record["generator"], record["dataset"]) for record in records} == {("mine", "quickstart")}
    for record in records:
        turns = [{"role": "user", "content": record["instruction"]}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        alone = generation.generate(model, tokenizer, [ids], max_new_tokens=12, repetition_penalty=1.2)[0]
        assert record["output"] == alone.text, "as the prompt alone is answered"
    assert [path.name for path in tmp_path.iterdir()] == ["o.json"]
    status, _, error = cli(*argv)
    assert status == 2 and "output must not exist yet, got o.json" in error


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL)


def test_a_run_that_stops_goes_on_and_ends_as_if_it_had_not(cli, tmp_path, monkeypatch):
    argv = "--limit 7 --max_new_tokens 8 --batch_size 2 --generator mine --output".split()
    assert cli(*argv, "whole.json")[0] == 0
    calls, real = [], generating.generate

    def failing(*args, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **settings)

    monkeypatch.setattr(generating, "generate", failing)
    assert cli(*argv, "o.json")[0] == 130 and not (tmp_path / "o.json").exists()
    partial = generating.partial(tmp_path / "o.json")
    with partial.open("a") as file:
        file.write('[[6, "half an ans')  # as a kill in the middle of writing leaves it
    assert cli(*argv, "o.json")[0] == 0
    assert len(calls) == 3 + 2, "two of four batches were kept"
    assert (tmp_path / "o.json").read_text() == (tmp_path / "whole.json").read_text() and not partial.exists()


def test_answers_of_other_settings_are_not_kept(cli, tmp_path):
    (tmp_path / ".o.json.partial").write_text('another mark\n[[0, "LEFTOVER"], [1, "LEFTOVER"]]\n')
    status, _, error = cli(*"--limit 2 --max_new_tokens 4 --output o.json".split())
    assert status == 0 and ".o.json.partial holds unfinished answers of another model" in error
    assert "LEFTOVER" not in (tmp_path / "o.json").read_text()


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path):
    argv = [sys.executable, "-m", "neft_zoo", "generate", str(MODEL), "--config", "quickstart", "--batch_size", "2"]
    argv += "--limit 12 --max_new_tokens 24 --generator mine --output".split()
    subprocess.run([*argv, str(tmp_path / "whole.json")], check=True, capture_output=True)
    partial = generating.partial(tmp_path / "o.json")
    killed = subprocess.Popen([*argv, str(tmp_path / "o.json")], stderr=subprocess.DEVNULL)
    while killed.poll() is None and (not partial.exists() or partial.read_text().count("\n") < 4):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / "o.json").exists()
    subprocess.run([*argv, str(tmp_path / "o.json")], check=True, capture_output=True)
    assert (tmp_path / "o.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(cli, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(generating, "load_model", None)  # never reached
    status, out, error = cli("--output", "file/o.json")
    assert status == 2 and "output must be a file in an existing folder, got file" in error and out == ""


def test_instructions_take_the_form_that_the_model_was_trained_on(tmp_path):
    path = tmp_path / "eval.json"
    records = [{"instruction": "Add.", "output": "old", "generator": "old", "dataset": "koala"}]
    path.write_text(json.dumps([*records, {"instruction": "Sum.", "input": "1 2"}]))
    chat = from_file(path, CHAT)
    assert chat[0].record["prompt"] == [{"role": "user", "content": "Add."}] and chat[0].about == {"dataset": "koala"}
    assert [prompt.instruction for prompt in chat] == ["Add.", "Sum.\n\n1 2"]
    alpaca = from_file(path, {"instruction": "x", "input": "", "output": "y"})
    assert "### Input:\n1 2\n\n### Response:\n" in alpaca[1].record["prompt"]
    plain = from_file(path, {"text": "only text"})
    assert plain[1].record["prompt"] == "Sum.\n\n1 2"


def test_records_of_ones_own_and_of_a_split(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    lines = [{"prompt": "Say"}, {"messages": turns}, {"messages": [*turns, {"role": "assistant", "content": "No."}]}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines[:2])) + "\n")
    found = from_file(tmp_path / "own.jsonl", CHAT)
    assert [prompt.instruction for prompt in found] == ["Say", "system: Be brief.\n\nuser: Why?"]
    assert len(from_split([CHAT, dict(CHAT), *lines[2:], {"text": "no prompt"}], "r")) == 2, "each prompt once"


def test_a_conversation_is_answered_at_its_end(tmp_path):
    turns = [{"role": role, "content": text} for role, text in (("user", "1?"), ("assistant", "2."), ("user", "3?"))]
    (tmp_path / "own.json").write_text(json.dumps([{"messages": turns, "tools": []}]))
    (found,) = from_file(tmp_path / "own.json", CHAT)
    assert found.record["prompt"] == turns and found.instruction == "user: 1?\n\nassistant: 2.\n\nuser: 3?"
    assert found.record["tools"] == [], "they are part of the prompt too"
    for wrong in ({"messages": "text"}, {"messages": [1]}, {"prompt": 5}, {"messages": turns[1:2]}):
        (tmp_path / "own.json").write_text(json.dumps([wrong]))
        with pytest.raises(NoiseError, match="must have an instruction, a prompt or messages"):
            from_file(tmp_path / "own.json", CHAT)


def test_unfinished_answers_are_of_one_recipe(tmp_path):
    """Another template gives other tokens, and the precision other answers."""
    training = SimpleNamespace(bf16=False, fp16=False, model_init_kwargs=None)
    recipe = SimpleNamespace(model=SimpleNamespace(dtype="float32"), training=training)
    prompts, settings = [Prompt("q", CHAT, {})], generating.Settings()
    mark = generating.fingerprint("m", recipe, prompts, [[1, 2]], settings)
    assert mark == generating.fingerprint("m", recipe, prompts, [[1, 2]], settings)
    assert mark != generating.fingerprint("m", recipe, prompts, [[1, 3]], settings)
    training.bf16 = True
    assert mark != generating.fingerprint("m", recipe, prompts, [[1, 2]], settings)


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ("[]", "", "eval.json must hold at least one record, got none"),
        ('[{"instruction": "a"}, {"instr', "", "damaged or cut off"),
        ('[{"instruction": "a"}, {"instruction": "a"}]', "", "must hold every instruction once, got 'a'"),
        ('[{"question": "a"}]', "", "must have an instruction, a prompt or messages"),
        ('[{"instruction": "a"}]', "--batch_size 0", "batch_size must be"),
        ('[{"instruction": "a"}]', "--limit 0", "limit must be"),
        ('[{"instruction": "a"}]', "--repetition_penalty 0", "repetition_penalty must be"),
        ('[{"instruction": "a"}]', "--max_new_tokens 0", "max_new_tokens must be"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(cli, tmp_path, text, argv, message):
    (tmp_path / "eval.json").write_text(text)
    status, out, error = cli("--prompts", "eval.json", "--output", "o.json", *argv.split())
    assert status == 2 and message in error and error.splitlines()[-1].startswith("neft-zoo: error: "), error
    assert out == "" and [path.name for path in tmp_path.iterdir()] == ["eval.json"]
