"""What the ways into other frameworks check and read before a framework is asked; `make test-integrations` trains."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers

from neft_zoo import NoiseError, enable
from neft_zoo.cli.frameworks import read_framework
from neft_zoo.cli.main import main
from neft_zoo.integrations import building, checks, llamafactory, swift
from neft_zoo.registry.entries import make

ROOT = Path(__file__).parents[2]
UNIFORM, SYMMETRIC = make("neft_uniform"), make("symnoise")


@pytest.fixture
def installed(monkeypatch):
    """Every framework is installed, in the version that is known."""
    known = {"axolotl": "0.19.0", "llamafactory": "0.9.5", "ms-swift": "4.6.0"}
    monkeypatch.setattr(checks, "version", known.__getitem__)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("noise: r3f\nlearning_rate: 1.0e-3\noutput_dir: runs/mine\nhub_token: not-for-anybody\n")
    return path


def test_noise_is_taken_out_of_a_command_line_wherever_it_stands(installed, file):
    given = ["swift", "--noise", "symnoise", str(file), "--noise.alpha", "10", "learning_rate=1.0e-4", "packing=true"]
    values = {"learning_rate": 1e-4, "output_dir": "runs/mine", "hub_token": "not-for-anybody", "packing": True}
    noise = {"name": "symnoise", "alpha": 10}
    assert read_framework(given, "run", ("swift",)) == ("swift", values, noise)
    assert read_framework(["swift", str(file)], "run", ("swift",))[2] == "r3f"


@pytest.mark.parametrize(
    "text, message", [("a: [", "must be a YAML file of swift's options"), ("[a]", "mapping of options")]
)
def test_a_file_without_options_is_one_sentence(installed, tmp_path, capsys, text, message):
    (tmp_path / "train.yaml").write_text(text)
    assert main(["doctor", "swift", str(tmp_path / "train.yaml")]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


@pytest.mark.parametrize("command", ["run llamafactory", "doctor axolotl", "doctor swift"])
def test_a_framework_that_is_not_installed_is_one_sentence(command, capsys):
    assert main([*command.split(), "train.yaml", "--noise", "symnoise"]) == 2
    told = capsys.readouterr().err
    assert "got no such package: give a trainer of any version to neft_zoo.enable" in told and told.count("\n") == 1


def trainer_of(llama, tokenizer, folder):
    rows = [{"input_ids": list(range(2, 2 + n)), "labels": list(range(2, 2 + n))} for n in range(20, 44)]
    arguments = {"per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none"}
    return transformers.Trainer(
        llama(),
        transformers.TrainingArguments(str(folder), **arguments),
        train_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize(
    "by_plugin, flag, shown", [(None, None, "r3f"), (None, "symnoise", "symnoise"), ("r3f", None, "r3f")]
)
def test_doctor_measures_the_trainer_that_a_framework_makes(
    installed, file, llama, tokenizer, tmp_path, monkeypatch, capfd, by_plugin, flag, shown
):
    def builder(options, strategy, path):
        print("what a framework prints")
        assert "noise" not in options and options["learning_rate"] == 1e-3 and "mine" not in options["output_dir"]
        trainer = trainer_of(llama, tokenizer, options["output_dir"])
        return trainer if by_plugin is None else enable(trainer, by_plugin)

    monkeypatch.setitem(building.BUILDERS, "axolotl", builder)
    if by_plugin is not None:
        file.write_text(file.read_text().replace("noise: r3f\n", ""))
    flags = [] if flag is None else ["--noise", flag]
    assert main(["doctor", "axolotl", str(file), *flags, "--json", str(tmp_path / "doctor.json")]) == 0
    told = capfd.readouterr()
    assert f"neftune_noise_alpha    {shown}" in told.out and "what a framework prints" not in told.out
    assert (tmp_path / "doctor.json").is_file() and not (tmp_path / "runs").exists()


def test_what_keeps_a_framework_from_making_a_trainer_is_one_sentence(installed, file, monkeypatch, capsys):
    def builder(options, strategy, path):
        raise KeyError("dataset")

    monkeypatch.setitem(building.BUILDERS, "swift", builder)
    assert main(["doctor", "swift", str(file)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "neft-zoo: error: swift must be able to make its trainer: KeyError 'dataset'."


def test_a_program_of_another_framework_ends_in_one_sentence(monkeypatch, capsys):
    others = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: others.append(error))
    checks.end_in_one_sentence()
    sys.excepthook(NoiseError, NoiseError("noise must be on."), None)
    assert capsys.readouterr().err == "neft-zoo: error: noise must be on.\n" and not others
    other = ValueError("theirs")
    sys.excepthook(ValueError, other, None)
    assert others == [(ValueError, other, None)] and capsys.readouterr().err == ""


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
    monkeypatch.setitem(checks.KNOWN, "swift", "no-such-framework==1.0")
    with pytest.raises(NoiseError, match="needs no-such-framework==1.0, got no such package"):
        checks.check_version("swift")
    monkeypatch.undo()
    monkeypatch.setattr(checks, "version", lambda name: "0.9.6")
    with pytest.raises(NoiseError, match="needs llamafactory==0.9.5, got 0.9.6: give a trainer .*enable"):
        checks.check_version("llamafactory")
    for name, known in {"llamafactory": "0.9.5", "swift": "4.6.3", "axolotl": "0.19.1.dev0"}.items():
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
    monkeypatch.setattr(checks.torch.cuda, "device_count", lambda: 4)
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


def test_unsloth_is_imported_before_what_it_changes():
    guide = (ROOT / "docs" / "guides" / "unsloth.md").read_text(encoding="utf-8")
    programs = [guide.partition("```python\n")[2].partition("```")[0]]
    programs.append((ROOT / "recipes" / "integrations" / "unsloth_sft.py").read_text(encoding="utf-8"))
    for program in programs:
        imports = [line.split()[1] for line in program.splitlines() if line.startswith(("from ", "import "))]
        assert imports[0] == "unsloth" and {"trl", "neft_zoo"} < set(imports)
