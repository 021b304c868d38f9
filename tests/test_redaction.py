"""No secret is saved or printed, however it came in and whatever is around it."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from string import ascii_letters, digits

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neft_zoo import redaction
from neft_zoo.compare.fingerprint import digest, fingerprint
from neft_zoo.config import recipe
from neft_zoo.config.options import NAMES
from neft_zoo.errors import NoiseError, one_line, shown
from neft_zoo.files import write_json
from neft_zoo.redaction import MASK, is_secret, redact, redacting_streams, remember, remember_command_line

SECRET = st.text(ascii_letters + digits + "-_.~+/$!'\"\\%é", min_size=8, max_size=60)
SECRET_NAMES = (
    "hub_token token api_key HF_TOKEN WANDB_API_KEY COMET_KEY AWS_SECRET_ACCESS_KEY password use_auth_token apiKey "
    "hubToken client_secret Authorization db.password"
).split()
PUBLIC_NAMES = (
    "eos_token pad_token max_tokens key row_key loss_per_token tokens author tokenizer max_new_tokens "
    "num_input_tokens_seen dataset_text_field passes signature PWD OLDPWD"
).split()


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())


def test_names_tell_secrets_from_options():
    assert [name for name in SECRET_NAMES if not is_secret(name)] == []
    assert [name for name in PUBLIC_NAMES if is_secret(name)] == []
    assert [name for name in NAMES if is_secret(name)] == ["hub_token"]


WAYS = {
    "option": lambda secret, name: remember({name: secret}),
    "nested": lambda secret, name: remember({"datasets": [{"path": "json", "storage_options": {name: secret}}]}),
    "json": lambda secret, name: remember({"model_init_kwargs": json.dumps({name: secret})}),
    "below": lambda secret, name: remember({name: {"any": [secret]}}),
    "flag": lambda secret, name: remember_command_line(["sft", "quickstart", f"--{name}", secret]),
    "flag with =": lambda secret, name: remember_command_line([f"--{name}={secret}"]),
    "URL": lambda secret, name: remember({"storage": f"postgresql://me:{secret}@host:5432/db"}),
}


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=50)
@given(secret=SECRET, name=st.sampled_from(SECRET_NAMES), around=st.text(max_size=20))
def test_a_secret_that_came_in_goes_nowhere(way, secret, name, around, tmp_path_factory):
    if secret in "".join([name, MASK, around, "got value must be a number"]):
        return
    redaction._known.clear()
    WAYS[way](secret, name)
    text = f"{around}{secret}{around}"
    # A URL that holds the secret, and texts long enough to be cut inside of it.
    said = [redact(text), one_line(" " * 290 + secret), shown(text), shown({name: secret}), shown([secret] * 5)]
    said += [str(NoiseError(f"value must be a number, got {text!r}.")), redact(repr({"a": [text]}))]
    path = tmp_path_factory.getbasetemp() / "saved.json"
    write_json(path, {"config": {name: secret, text: [text, {"note": text}]}})
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), redacting_streams():
        print(text, {"value": text}, file=sys.stderr)
        print(text)
    said += [path.read_text(), printed.getvalue()]
    for output in said:
        for form in {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}:
            assert form not in output, output
    # Half a secret, where a message was cut, would be one too many.
    assert secret[:8] not in one_line("x" * 290 + secret) and secret[-8:] not in shown("x" * 60 + secret)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("no database at mysql://me:pa55@host/db.", "no database at mysql://me:***@host/db."),
        ("https://hf_abcdefghijklmnopqrstuvwx@hub/x?token=abc&page=2", "https://***@hub/x?token=***&page=2"),
        ("Authorization: Bearer abcdef012345", "Authorization: Bearer ***"),
        ("http://localhost:8000/v1?user=a@b", "http://localhost:8000/v1?user=a@b"),
        ("sqlite:///runs/tune/study.db", "sqlite:///runs/tune/study.db"),
        ("alpha=5, key=3, a@b:c", "alpha=5, key=3, a@b:c"),
    ],
)
def test_a_text_is_hidden_by_its_shape(text, expected):
    assert redact(text) == expected


def test_a_secret_may_look_like_a_flag():
    remember_command_line(["sft", "--hub_token", "--000000", "--bf16", "true"])
    assert redact("unknown flag --000000, --bf16") == f"unknown flag {MASK}, --bf16"


def test_numbers_stay_unless_they_are_a_password():
    values = {"loss_per_token": 0.5, "hub_token": None, "password": 12345678, "token": True, "tokens": 3}
    assert redact(values) == {**values, "password": MASK}


def test_a_secret_of_the_environment_is_known(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert redact("key 0123456789abcdef refused") == "key *** refused"


def test_paths_in_the_environment_are_no_secrets(monkeypatch, tmp_path):
    for name in ("PWD", "OLDPWD", "GOOGLE_APPLICATION_CREDENTIALS", "CI_JOB_TOKEN"):
        monkeypatch.setenv(name, str(tmp_path))
    assert redact({"dataset_name": f"{tmp_path}/data"}) == {"dataset_name": f"{tmp_path}/data"}


@pytest.mark.parametrize("name", recipe.names())
def test_keys_of_results_are_what_they_were(name):
    """A hash changes with every option but a secret: no shipped recipe has one."""
    values = recipe.load(name).values
    local = {key: None for key in ("model_name_or_path", "dataset_name")}
    plain = {**values, **local}
    assert fingerprint(plain) == digest(plain)
    assert fingerprint({**plain, "hub_token": "one"}) == fingerprint({**plain, "hub_token": "another"})
    assert fingerprint({**plain, "seed": 77}) != fingerprint(plain)
