"""noise.json, the model card, and runs that must not be mixed."""

import errno
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import TrainingArguments

import neft_zoo
from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer, Strategy, make
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import Fixed
from neft_zoo.training import provenance


@pytest.fixture
def trainer(llama, config, records, tokenizer):
    def build(noise, **settings):
        args = config(save_strategy="steps", save_steps=2, **settings)
        return SFTTrainer(llama(), args=args, train_dataset=records, processing_class=tokenizer, noise=noise)

    return build


def test_checkpoints_model_and_card_name_the_noise(trainer):
    run = trainer({"name": "neft_scheduled", "alpha": {"schedule": "cosine", "start": 9, "end": 1}})
    run.train()
    run.save_model()
    out = Path(run.args.output_dir)
    saved = [json.loads((out / place / "noise.json").read_text()) for place in ("checkpoint-2", "checkpoint-4", "")]
    assert (
        saved[0]
        == saved[1]
        == saved[2]
        == {
            "name": "neft_scheduled",
            "arguments": {"alpha": {"schedule": "cosine", "start": 9.0, "end": 1.0}},
            "version": 1,
            "neft_zoo": neft_zoo.__version__,
        }
    )
    card = ModelCard.load(out / "README.md")
    assert {"neft-zoo", "neft_scheduled", "trl"} <= set(card.data.tags)
    assert card.text.count("### Embedding noise") == 1 and "Cosine(start=9.0, end=1.0)" in card.text
    assert not list(out.rglob("*.partial"))


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "a resume under other noise, unnoticed")
@pytest.mark.parametrize("other", ["symnoise", {"name": "neft_uniform", "alpha": 10}, "none"])
def test_another_strategy_is_refused(trainer, other):
    trainer("neft_uniform").train()
    for resume in (True, None):
        with pytest.raises(NoiseError, match=r"holds a run with noise neft_uniform\(alpha=5.0"):
            trainer(other).train(resume_from_checkpoint=resume)
    out = trainer("neft_uniform").args.output_dir
    with pytest.raises(NoiseError, match="checkpoint-4 holds a run"):
        trainer(other, output_dir=f"{out}-b").train(resume_from_checkpoint=f"{out}/checkpoint-4")
    trainer("neft_uniform", max_steps=6).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "none"}'])
def test_a_damaged_file_is_one_sentence(trainer, text):
    run = trainer("neft_uniform")
    run.train()
    (Path(run.args.output_dir) / "checkpoint-4" / "noise.json").write_text(text)
    with pytest.raises(NoiseError, match="noise.json must hold"):
        trainer("neft_uniform").train(resume_from_checkpoint=True)


def test_strategies_that_no_file_can_hold_are_told_apart_by_their_repr(tmp_path):
    one, other = (Strategy(AdditiveNoise(Uniform(), Fixed(size))) for size in (0.1, 0.2))
    provenance.write(tmp_path, one)
    provenance.check(tmp_path, one)
    with pytest.raises(NoiseError, match="Fixed"):
        provenance.check(tmp_path, other)
    provenance.write(tmp_path, make("neft_uniform", alpha=lambda progress: 5 * progress))
    assert json.loads((tmp_path / "noise.json").read_text())["name"] == "neft_uniform"


def test_the_last_complete_checkpoint_is_the_one_that_is_resumed(tmp_path):
    states = {
        "checkpoint-2": "{}",
        "checkpoint-10": "{}",
        "checkpoint-12": "{",
        "checkpoint-x": "{}",
        "other-99": "{}",
    }
    for name, text in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / provenance.STATE).write_text(text)
    (tmp_path / "checkpoint-20").mkdir()
    assert [provenance.is_complete(tmp_path / f"checkpoint-{n}") for n in (2, 12, 20)] == [True, False, False]
    assert provenance.last_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert provenance.check_run(tmp_path, True, make("none")) == tmp_path / "checkpoint-10"
    assert provenance.check_run(tmp_path, None, make("none")) is None


@pytest.mark.cell("Faults", "full disk while noise.json is written")
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    provenance.write(tmp_path, make("neft_uniform"))

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(NoiseError, match="noise.json must be a file that can be written: No space"):
        provenance.write(tmp_path, make("symnoise"))
    assert [path.name for path in tmp_path.iterdir()] == ["noise.json"]
    provenance.check(tmp_path, make("neft_uniform"))


@pytest.mark.cell("Faults", "full disk while noise.json is written")
def test_a_file_that_ends_half_way_leaves_the_earlier_one(tmp_path):
    """The system itself refuses to go on in the middle of the file, as on a full disk."""
    resource = pytest.importorskip("resource", reason="there is no limit of file sizes on this system")
    provenance.write(tmp_path, make("neft_uniform"))
    before, (soft, hard) = (tmp_path / "noise.json").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(NoiseError, match="noise.json must be a file that can be written: File too large"):
            provenance.write(tmp_path, make("symnoise"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["noise.json"]
    assert (tmp_path / "noise.json").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("symnoise", "symnoise"),
        ({"name": "neft_uniform", "alpha": "5e0"}, {"name": "neft_uniform", "alpha": "5e0"}),
        ('{"name": "neft_uniform", "alpha": 3}', {"name": "neft_uniform", "alpha": 3}),
        (False, None),
        (None, None),
    ],
)
def test_config_field_is_json(tmp_path, given, kept):
    config = NoiseSFTConfig(output_dir=str(tmp_path), noise=given, report_to="none", use_cpu=True)
    assert config.noise == kept
    assert json.loads(config.to_json_string())["noise"] == kept
    assert isinstance(config, TrainingArguments) and config.to_dict()["noise"] == kept


@pytest.mark.parametrize(
    "noise", [3, ["neft_uniform"], "nothing", {"alpha": 3}, '{"alpha": 3}', {"name": "symnoise", "beta": 1}]
)
def test_config_refuses_what_is_no_noise(tmp_path, noise):
    with pytest.raises(NoiseError):
        NoiseSFTConfig(output_dir=str(tmp_path), noise=noise, use_cpu=True)
    with pytest.raises(NoiseError, match="neftune_noise_alpha"):
        NoiseSFTConfig(output_dir=str(tmp_path), noise="symnoise", neftune_noise_alpha=5.0, use_cpu=True)
