"""What the ways into other frameworks check and read before a framework is asked; `make test-integrations` trains."""

from types import SimpleNamespace

import pytest

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.cli.run import read_flags
from neft_zoo.integrations import checks, llamafactory, swift
from neft_zoo.registry.entries import make

UNIFORM, SYMMETRIC = make("neft_uniform"), make("symnoise")


def test_noise_is_taken_out_of_a_command_line_wherever_it_stands():
    given = ["llamafactory", "--noise", "symnoise", "train.yaml", "--noise.alpha", "10", "learning_rate=1e-4"]
    assert read_flags(given) == ("llamafactory", "train.yaml", ["learning_rate=1e-4"])


@pytest.mark.parametrize(
    "flags, message",
    [
        ("llamafactory", "run needs FRAMEWORK FILE"),
        ("lamafactory train.yaml", "did you mean llamafactory?"),
        ("llamafactory train.yaml --learning_rate 1", "unknown option '--learning_rate'"),
        ("llamafactory train.yaml learning_rate 1", "NAME=VALUE, got 'learning_rate'"),
        ("llamafactory train.yaml --noise", "--noise needs a value"),
    ],
)
def test_a_command_line_that_does_not_fit_ends_in_one_sentence(flags, message, capsys):
    assert main(["run", *flags.split()]) == 2
    told = capsys.readouterr().err
    assert message in told and told.startswith("neft-zoo: error: ") and told.count("\n") == 1


def test_help_shows_how_to_start_several_processes(capsys):
    assert main(["run", "--help"]) == 0
    assert "torchrun --nproc_per_node 8 -m neft_zoo run llamafactory" in capsys.readouterr().out


def test_a_framework_must_be_there_in_a_version_that_is_known(monkeypatch):
    monkeypatch.setitem(checks.KNOWN, "no-such-framework", "==1.0")
    with pytest.raises(NoiseError, match="needs no-such-framework==1.0, got no such package"):
        checks.check_version("no-such-framework")
    monkeypatch.setattr(checks, "version", lambda name: "0.9.6")
    with pytest.raises(NoiseError, match="needs llamafactory==0.9.5, got 0.9.6: give a trainer .*enable"):
        checks.check_version("llamafactory")
    for name, known in {"llamafactory": "0.9.5", "ms-swift": "4.6.3", "axolotl": "0.19.1.dev0"}.items():
        monkeypatch.setattr(checks, "version", lambda name, known=known: known)
        checks.check_version(name)


REENTRANT = "must not be reentrant with symnoise, which runs several forward passes a step"


@pytest.mark.parametrize(
    "options, environment, message",
    [
        ({"neftune_noise_alpha": 5}, {}, "neftune_noise_alpha must be unset when noise is given, got 5"),
        ({"stage": "ppo"}, {}, "stage must be one of pt, sft, rm, dpo, kto with noise, got 'ppo'"),
        ({"use_ray": True}, {}, "use_ray must be off with noise"),
        ({}, {"USE_MCA": "1"}, "use_mca must be off with noise"),
        ({}, {}, REENTRANT),
        ({"use_reentrant_gc": True}, {}, "set use_reentrant_gc: false, or disable_gradient_checkpointing: true"),
    ],
)
def test_llamafactory_options_that_noise_does_not_go_with(options, environment, message):
    with pytest.raises(NoiseError, match=message):
        llamafactory.check(options, SYMMETRIC, environment)


def test_llamafactory_options_that_noise_goes_with():
    for options in ({"use_reentrant_gc": False}, {"disable_gradient_checkpointing": True, "stage": "dpo"}):
        llamafactory.check(options, SYMMETRIC, {"LOCAL_RANK": "0"})
    llamafactory.check({}, UNIFORM, {"LOCAL_RANK": "0", "USE_RAY": "0"})


def test_llamafactory_says_that_several_devices_need_a_process_each(monkeypatch):
    monkeypatch.setattr(llamafactory.torch.cuda, "device_count", lambda: 4)
    with pytest.raises(NoiseError, match="4 devices need a process each: torchrun --nproc_per_node 4"):
        llamafactory.check({}, UNIFORM, {})
    llamafactory.check({}, UNIFORM, {"LOCAL_RANK": "3"})


def swift_options(**options):
    plain = {"neftune_noise_alpha": None, "gradient_checkpointing": True, "gradient_checkpointing_kwargs": None}
    return SimpleNamespace(**plain | options)


def test_swift_options_that_noise_does_and_does_not_go_with():
    swift.check(swift_options(), UNIFORM)
    swift.check(swift_options(gradient_checkpointing=False), SYMMETRIC)
    swift.check(swift_options(gradient_checkpointing_kwargs={"use_reentrant": False}), SYMMETRIC)
    with pytest.raises(NoiseError, match="two noises would add up"):
        swift.check(swift_options(neftune_noise_alpha=5.0), UNIFORM)
    for kwargs in (None, {"use_reentrant": True}):
        with pytest.raises(NoiseError, match=REENTRANT):
            swift.check(swift_options(gradient_checkpointing_kwargs=kwargs), SYMMETRIC)


def test_a_workflow_makes_its_trainer_by_the_global_that_is_changed_and_has_it_back_after_an_error(monkeypatch):
    class CustomTrainer:
        def __init__(self, model, args):
            self.model, self.args = model, args

    workflow = SimpleNamespace(CustomTrainer=CustomTrainer)
    monkeypatch.setattr(llamafactory, "import_module", {"llamafactory.train.pt.workflow": workflow}.__getitem__)
    with pytest.raises(KeyError), llamafactory.changed("pt", lambda trainer: (trainer, "changed")):
        made, what = workflow.CustomTrainer("model", args="args")
        assert (made.model, made.args, what) == ("model", "args", "changed")
        raise KeyError
    assert workflow.CustomTrainer is CustomTrainer
