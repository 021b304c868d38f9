"""A secret in any input of a command is in none of its outputs: files, standard output, standard error."""

import json
import os

import pytest
from selection import quick

from neft_zoo import redaction
from neft_zoo.cli.main import main

SECRETS = {
    "hub_token": "hf_PlantedHubToken0123456789",
    "env": "planted-environment-0123456789",
    "nested": "planted-nested-0123456789",
    "flag": "planted-flag-0123456789",
    "url": "pl4nted/url+0123456789",
}


@pytest.fixture
def recipe(tiny_recipe, tmp_path, monkeypatch):
    """A recipe that holds a secret wherever one may stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redaction, "_known", set())
    for name in ("HF_TOKEN", "WANDB_API_KEY", "PLAIN_VARIABLE"):
        monkeypatch.setenv(name, "x")  # what the command sets is taken back
        monkeypatch.delenv(name)
    url = f"https://someone:{SECRETS['url']}@example.invalid/x"
    options = json.loads(tiny_recipe.read_text()) | {
        "noise": "neft_uniform",
        "hub_token": SECRETS["hub_token"],
        "env": {"WANDB_API_KEY": SECRETS["env"], "PLAIN_VARIABLE": url},
        "model_init_kwargs": {"token": SECRETS["nested"]},
        "save_strategy": "steps",
        "save_steps": 1,
    }
    (tmp_path / "secret.yaml").write_text(json.dumps(options))
    return tmp_path / "secret.yaml"


def leaks(folder, said):
    """Return where a secret stands: a file's name, or a stream."""
    outputs = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml"}
    outputs |= {"names": " ".join(outputs).encode(), "streams": "".join(said).encode()}
    found = [(name, kind) for name, data in outputs.items() for kind, each in SECRETS.items() if each.encode() in data]
    assert len(outputs) > 2 or said[1], "something was written or said"
    return found


COMMANDS = [
    "sft {recipe} --output_dir runs/out --hub_token {flag}",
    "compare {recipe} --seeds 1 --output runs/compare",
    "doctor {recipe} --json doctor.json",
    "evaluate {model} --config {recipe} --parts losses --no_plots --output evaluation",
    "alpha {recipe} --steps 1 --records 4 --points 3 --no_plots --output alpha",
    "generate {model} --config {recipe} --max_new_tokens 2 --output outputs.json",
    # What is refused, in our words and in others':
    "sft {recipe} --hub_token {flag} --learning_rate {flag}",
    "sft {recipe} --dataset_name {url}.csv",
    "sft {recipe} --model_init_kwargs {{'token':'{flag}'}}",
    "compare {recipe} --evaluate answers:{flag},api_key:{flag} --hub_token {flag}",
    "tune {recipe} --trials 1 --storage postgresql://me:{secret}@127.0.0.1:1/db",
    "tune {recipe} --trials 1 --storage nosuchdatabase://me:{secret}@127.0.0.1:1/db",
    "judge {answers} {answers} --model m --base_url http://me:{secret}@127.0.0.1:1/v1 --retries 0",
]


# What `compare` saves of a run comes of the same options as what `sft` saves.
@pytest.mark.parametrize("command", quick(COMMANDS, *(each for each in COMMANDS if each != COMMANDS[1])))
def test_no_output_of_a_command_holds_a_secret_of_its_input(command, recipe, tiny_recipe, tmp_path, capfd):
    answers = tmp_path / "answers.json"
    answers.write_text('[{"instruction": "Hi", "output": "a", "generator": "m"}]')
    places = dict(recipe=recipe, model=tiny_recipe.parent / "model", answers=answers, flag=SECRETS["flag"])
    places |= dict(secret=SECRETS["url"], url=f"https://me:{SECRETS['url']}@example.invalid/x")
    status = main(command.format(**places).split())
    said = capfd.readouterr()
    refused = COMMANDS.index(command) >= 6
    assert (status == 2) == refused, said.err[-2000:]
    assert leaks(tmp_path, said) == []
    assert not refused or said.err.count("neft-zoo: error: ") == 1


def test_the_token_is_handed_to_the_hubs_client(recipe):
    from neft_zoo.config.options import load_options

    options = load_options(str(recipe))
    assert options.training.hub_token is None and os.environ["HF_TOKEN"] == SECRETS["hub_token"]
    assert "token" not in options.training.model_init_kwargs
