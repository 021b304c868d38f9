"""`enable` and `NoiseCallback` with the oldest TRL that other frameworks pin; `make test-oldest` runs this with it."""

import importlib
import sys

import pytest
import trl
from datasets import Dataset
from peft import LoraConfig
from short_run import short_run
from small_models import same, weights

import neft_zoo
from neft_zoo import NoiseCallback, NoiseError, NoiseMixin, Trainer, enable
from neft_zoo.training import hf_internals

LOUD = {"name": "neft_uniform", "alpha": 20}
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
PAIRS = Dataset.from_list([{"prompt": f"Q{i}", "chosen": " yes" * (i + 1), "rejected": " no"} for i in range(8)])


@pytest.fixture
def build(llama, tokenizer, records, tmp_path):
    """Return a maker of TRL's trainers: two steps of four records."""

    def make(kind="SFT", mixed=False, callbacks=None, noise=None, **settings):
        try:
            cls = getattr(trl, f"{kind}Trainer")
        except RuntimeError as error:  # trl 0.24 imports mergekit for it, with transformers 5
            pytest.skip(f"the stock trainer: {error}")
        defaults = short_run(tmp_path / "out")
        peft = settings.pop("peft_config", None)
        folder = tmp_path / "model"
        llama().save_pretrained(folder), tokenizer.save_pretrained(folder)
        model = llama()
        model.config._name_or_path = str(folder)  # a reference is loaded from it
        return (type("Mixed", (NoiseMixin, cls), {}) if mixed else cls)(
            model,
            args=getattr(trl, f"{kind}Config")(**{**defaults, **settings}),
            train_dataset=records if kind == "SFT" else PAIRS,
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=peft,
            **({} if noise is None else {"noise": noise}),
        )

    return make


CASES = {
    "padded": dict(),
    "packed, LoRA": dict(packing=True, max_length=128, peft_config=LORA),
    "padding-free": dict(padding_free=True, max_length=None),
    "DPO": dict(kind="DPO"),
}


@pytest.mark.filterwarnings("ignore:.*padding-free.*", "ignore:.*packing.*")
@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise", "r3f"])
@pytest.mark.parametrize("case", CASES)
def test_enable_is_the_mixin_and_changes_a_run_by_its_noise_alone(build, case, noise):
    if case == "DPO" and noise == "r3f":
        pytest.skip("an older DPO trainer calls the model without labels")
    mixed, enabled, plain = build(mixed=True, noise=noise, **CASES[case]), build(**CASES[case]), build(**CASES[case])
    for trainer in (mixed, enable(enabled, noise), plain):
        trainer.train()
    assert same(weights(mixed.model), weights(enabled.model)) and not same(
        weights(enabled.model), weights(plain.model)
    )
    assert all(line["noise/rms"] > 0 for line in enabled.state.log_history if "loss" in line)


@pytest.mark.filterwarnings("ignore:.*padding-free.*", "ignore:.*packing.*")
@pytest.mark.parametrize("case", CASES)
def test_without_strength_it_is_plain_trl_and_a_callback_is_enable(build, case):
    plain, still = build(**CASES[case]), enable(build(**CASES[case]), {**LOUD, "alpha": 0})
    loud, called = enable(build(**CASES[case]), LOUD), build(callbacks=[NoiseCallback(LOUD)], **CASES[case])
    for trainer in (plain, still, loud, called):
        trainer.train()
    assert same(weights(plain.model), weights(still.model)) and same(weights(loud.model), weights(called.model))
    assert not same(weights(plain.model), weights(loud.model))
    assert not any(module._forward_hooks for module in called.model.modules())


@pytest.mark.parametrize("case", CASES)
def test_several_passes_count_a_batch_once(build, case):
    two, plain = enable(build(**CASES[case]), {"name": "symnoise", "alpha": 0}), build(**CASES[case])
    for trainer in (two, plain):
        trainer.train()
    counted = [[line.get("num_tokens") for line in each.state.log_history if "loss" in line] for each in (two, plain)]
    assert counted[0] == counted[1]


@pytest.mark.parametrize("found", ["0.24.0", None])
def test_a_trainer_of_ours_asks_for_its_trl_in_one_sentence(monkeypatch, found):
    monkeypatch.setattr(hf_internals, "find_spec", lambda name: found)
    monkeypatch.setattr(hf_internals, "version", lambda name: found)
    for name in ("trainers", "distillation"):
        monkeypatch.delitem(sys.modules, f"neft_zoo.training.{name}", raising=False)
    for name in ("SFTTrainer", "DPOTrainer", "DistillationTrainer"):
        with pytest.raises(NoiseError, match=rf"needs trl>=1\.\d+, got {found or 'no trl'}: .*enable.*NoiseCallback"):
            getattr(neft_zoo, name)
    assert importlib.import_module("neft_zoo").Trainer is Trainer


def test_transformers_trainer_needs_no_trl(imported_anew, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "trl"]:
        monkeypatch.setitem(sys.modules, name, None)
    exec("from neft_zoo import NoiseCallback, Trainer, attach, enable", {})
    with pytest.raises(ValueError, match="needs trl"):  # NoiseError, of the package imported anew
        exec("from neft_zoo import SFTTrainer", {})
