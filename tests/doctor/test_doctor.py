"""`neft-zoo doctor` on the shipped model and data, and on small Gemmas."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
import vision
from small_models import same, weights
from transformers import GemmaConfig, GemmaForCausalLM

from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer, enable, make
from neft_zoo.cli.main import main
from neft_zoo.doctor import report
from neft_zoo.doctor.measurements import Source, compare
from neft_zoo.doctor.of_trainer import examine_trainer
from neft_zoo.doctor.report import HOOK, OURS, DoctorReport


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """Return what a recipe of these lines, extending the quickstart, gives as JSON; each is run once."""
    folder, known = tmp_path_factory.mktemp("doctor"), {}

    def run(lines, *argv):
        key = lines, argv
        if key not in known:
            recipe, out = folder / f"{len(known)}.yaml", folder / f"{len(known)}.json"
            recipe.write_text(f"extends: quickstart\noutput_dir: {folder}/never\n{lines}\n")
            assert main(["doctor", str(recipe), "--json", str(out), *map(str, argv)]) == 0
            known[key] = json.loads(out.read_text())
            assert not (folder / "never").exists() and not list(folder.glob("tmp*")), "it writes the JSON only"
        return known[key]

    return run


PACKED = "packing: true\npacking_strategy: bfd\nnoise: null\nneftune_noise_alpha: 10\nper_device_train_batch_size: 4"


@pytest.mark.cell("Doctor", "packing, bfd")
def test_a_packed_recipe_starves_under_the_hook(examined):
    found = examined(PACKED)
    hook, ours = found["measured"][HOOK], found["measured"][OURS]
    assert (
        found["noise"] == {"name": "neft_uniform", "alpha": 10.0, "length": "document", "space": "scaled"}
        and found["alpha"] == 10
    )
    assert found["packing"] == "bfd" and found["rows"] == 1 and found["documents"] > 8 and found["batches"] == 3
    assert hook["ratio_max"] < 0.6 and abs(ours["ratio_median"] - 1) < 0.02
    assert hook["ratio_median"] == pytest.approx(found["documents"] ** -0.5, rel=0.3)
    assert hook["no_grad_ratio"] > 0.05 and hook["decoded_ratio"] > 2
    assert ours["no_grad_ratio"] == ours["decoded_ratio"] == ours["padding_share"] == 0
    assert hook["rank_correlation"] > 0.99 and abs(ours["rank_correlation"]) < 0.02
    assert found["weights"] == "real weights" and hook["snr_db"] > ours["snr_db"] + 6
    assert "a row of" in found["advice"][0] and 1 <= len(found["advice"]) <= 3


@pytest.mark.cell("Doctor", "padded")
def test_a_padded_recipe(examined):
    found = examined("noise: {name: symnoise, alpha: 10}\nper_device_train_batch_size: 4")
    hook, ours = found["measured"][HOOK], found["measured"][OURS]
    assert found["noise"]["name"] == "symnoise" and found["alpha"] == 10 and found["rows"] == found["documents"] == 4
    assert hook["ratio_min"] < 0.95 and hook["padding_share"] > 0.05
    assert ours["padding_share"] == 0 and found["real_tokens"] < 1
    # Signs instead of uniform numbers: the same alpha has sqrt(3) times the rms.
    assert ours["ratio_median"] == pytest.approx(3**0.5, rel=0.02)
    assert "padding as text" in found["advice"][0]


def test_the_readme_and_the_page_show_what_is_printed(examined):
    """The numbers, within what another machine's rounding may change."""
    found = examined("packing: true\npacking_strategy: bfd\nnoise: null\nneftune_noise_alpha: 5")
    number = re.compile(r"-?\d+\.\d+")
    for page in ("README.md", "docs/doctor.md"):
        text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
        shown = 0
        for what, *printed, _ in report.rows(DoctorReport.from_dict(found)):
            line = next((line for line in text.splitlines() if what in line and number.search(line)), None)
            if line is not None:
                wanted, there = ([float(n) for n in number.findall(text)] for text in (" ".join(printed), line))
                assert there == pytest.approx(wanted, rel=0.03, abs=0.02), line
                shown += 1
        assert shown >= 4, page


def test_noise_of_no_strength_has_no_share_and_no_correlation(examined):
    ours = examined("noise: {name: neft_uniform, alpha: 0}")["measured"][OURS]
    assert ours["ratio_max"] == 0 and ours["padding_share"] is None and ours["rank_correlation"] is None


def test_one_document_a_batch_makes_no_difference(examined):
    found = examined("per_device_train_batch_size: 1")
    assert found["measured"][HOOK]["ratio_median"] == pytest.approx(1, abs=0.03)
    assert "neither padding nor neighbours" in found["advice"][0]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, tokenizer):
    """Return a maker of folders with a Gemma, with or without its weights."""

    def make(width, with_weights):
        folder = tmp_path_factory.mktemp("gemma")
        torch.manual_seed(0)
        sizes = dict(hidden_size=width, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, head_dim=16)
        config = GemmaConfig(vocab_size=len(tokenizer), num_key_value_heads=4, **sizes)
        config.architectures = ["GemmaForCausalLM"]
        if with_weights:
            model = GemmaForCausalLM(config)
            torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
            model.save_pretrained(folder)
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.cell("Doctor", "scaled embeddings in bf16 (Gemma)")
def test_scaled_embeddings_in_bf16(examined, gemma):
    model = f"model_name_or_path: {gemma(2048, with_weights=False)}\ndtype: bfloat16"
    found = examined(f"{model}\npacking: true\nper_device_train_batch_size: 2")
    hook, ours = found["measured"][HOOK], found["measured"][OURS]
    assert found["weights"] == "random weights" and found["dtype"] == "bfloat16"
    assert hook["lost"] > 0.2 and ours["rounded_ratio"] == pytest.approx(1, abs=0.02)
    assert ours["snr_db"] > 35 and any("token_relative" in sentence for sentence in found["advice"])
    above = next(sentence for sentence in found["advice"] if " dB above the noise" in sentence)
    assert "above the noise (a guess, from random weights), as in" in above
    assert any("Rounding to bfloat16" in sentence for sentence in found["advice"])


def test_real_embeddings_are_found_and_the_real_model_agrees(examined, gemma):
    lines = f"model_name_or_path: {gemma(96, with_weights=True)}\nper_device_train_batch_size: 4"
    shrunk, real = examined(lines), examined(lines, "--real_model")
    assert shrunk["weights"] == real["weights"] == "real weights" and real["real_model"]
    for name in (HOOK, OURS):
        one, other = shrunk["measured"][name], real["measured"][name]
        assert one["snr_db"] == pytest.approx(other["snr_db"], abs=0.05)
        assert one["ratio_median"] == pytest.approx(other["ratio_median"], rel=0.03)


RECIPES = {
    "LoRA": ("use_peft: true", []),
    "LoRA on the embedding": ("use_peft: true\nlora_target_modules: [q_proj, embed_tokens]", []),
    "NF4, shrunk": ("use_peft: true\nload_in_4bit: true", []),
    "NF4, the model itself": ("use_peft: true\nload_in_4bit: true", ["--real_model"]),
    "int8, the model itself": ("use_peft: true\nload_in_8bit: true", ["--real_model"]),
    "streamed data": ("dataset_streaming: true\nmax_steps: 10", []),
    "streamed and packed data": ("dataset_streaming: true\nmax_steps: 10\npacking: true", []),
}


@pytest.mark.cell("Doctor", "{name}")
@pytest.mark.parametrize("name", RECIPES)
def test_adapters_quantization_and_streams(examined, name):
    lines, argv = RECIPES[name]
    found = examined(f"{lines}\nper_device_train_batch_size: 4", *argv)
    hook, ours = found["measured"][HOOK], found["measured"][OURS]
    assert hook["ratio_median"] < 0.95 and ours["ratio_median"] == pytest.approx(1, abs=0.02)
    assert hook["no_grad_ratio"] > 0.05 and ours["no_grad_ratio"] == ours["padding_share"] == 0
    assert found["weights"] == "real weights"


@pytest.mark.cell("Doctor", "packing, wrapped (by row: it keeps no borders of documents)")
def test_wrapped_rows_are_not_called_documents(examined, capsys):
    found = examined("packing: true\npacking_strategy: wrapped\nper_device_train_batch_size: 4")
    assert found["measured"][OURS]["ratio_median"] == pytest.approx(1, abs=0.02)
    report.show(DoctorReport.from_dict(found))
    shown = " ".join(capsys.readouterr().out.split())
    assert "the first: 4 x 256 tokens, packing wrapped" in shown and "choose bfd" in shown
    assert "as in the paper" not in shown


@pytest.mark.later
@pytest.mark.cell("Doctor", "vision-language model{how}")
@pytest.mark.parametrize("how", [", shrunk", ", the model itself"])
def test_a_vision_language_model(examined, tmp_path, how):
    processor = vision.processor()
    vision.llava(processor.tokenizer).save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    vision.records().to_parquet(tmp_path / "data.parquet")
    lines = f"model_name_or_path: {tmp_path}/llava\ndataset_name: {tmp_path}/data.parquet\nmax_length: null"
    argv = ["--real_model"] if "itself" in how else []
    found = examined(f"{lines}\nper_device_train_batch_size: 2\neval_strategy: 'no'", *argv)
    hook, ours = found["measured"][HOOK], found["measured"][OURS]
    assert found["images"] and found["documents"] == 2 and "images and padding as text" in found["advice"][0]
    assert hook["ratio_max"] < 0.95 and ours["ratio_median"] == pytest.approx(1, abs=0.05)
    assert hook["padding_share"] > 0.2 and ours["padding_share"] == 0


@pytest.mark.later
def test_a_model_that_fails_when_shrunk_is_one_sentence(tmp_path, capsys):
    """Of two passes the first runs to its end, and here the tower wants larger images."""
    processor = vision.processor()
    config = vision.llava(processor.tokenizer).config
    config.architectures, config.vision_config.image_size = ["LlavaForConditionalGeneration"], 2 * vision.PIXELS
    config.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    vision.records().to_parquet(tmp_path / "data.parquet")
    (tmp_path / "r.yaml").write_text(
        f"extends: quickstart\nmodel_name_or_path: {tmp_path}/llava\ndataset_name: {tmp_path}/data.parquet\n"
        "max_length: null\nper_device_train_batch_size: 2\neval_strategy: 'no'\nnoise: symnoise\n"
    )
    assert main(["doctor", str(tmp_path / "r.yaml")]) == 2
    error = capsys.readouterr().err
    assert "must run with TRL" in error and "--real_model takes the model itself" in error and "Traceback" not in error


@pytest.mark.parametrize("noise", ["neft_uniform", "token_subspace", "r3f"])
def test_the_model_is_left_as_it_was(llama, records, config, tokenizer, noise):
    model = llama(hidden_size=96)
    args: NoiseSFTConfig = config(max_length=64)
    trainer = SFTTrainer(model, args=args, train_dataset=records, processing_class=tokenizer)
    model.eval()
    before = weights(model)

    def source(session, batch):
        return Source(model.get_input_embeddings()(batch.input_ids).detach(), batch, session.noise, "real weights")

    found = compare(trainer, make(noise), 5.0, source)
    assert found.measured[OURS].ratio_median > 0 and found.weights == "real weights"
    assert same(before, weights(model)) and not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    hooks = [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert not hooks and not hasattr(model.get_input_embeddings(), "neftune_noise_alpha")


def test_the_table_and_the_report_that_is_read_again(examined, capsys):
    found = examined(PACKED)
    again = DoctorReport.from_dict(found)
    assert again.to_dict() == found and list(again.to_dict()) == list(found)
    report.show(again)
    out = capsys.readouterr().out
    assert all(word in out for word in ("neft_uniform", "padding", "dB", "advice")) and found["advice"][0] in " ".join(
        out.split()
    )
    wrapped = replace(again, layout=replace(again.layout, packing="wrapped"))
    assert "choose bfd" in wrapped.advice[0]


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ("lerning_rate: 3", [], "line 2: unknown option 'lerning_rate'; did you mean learning_rate?"),
        ("", ["--lerning_rate", "3"], "lerning_rate"),
        ("", ["--json", "no/such/d.json"], "json must be a file in an existing folder, got no/such/d.json"),
        ("noise: {name: pgd}", [], "added to the embeddings, got 'pgd'"),
        ("noise: {name: flat_lora}", [], "added to the embeddings, got 'flat_lora'"),
        ("noise: null\nneftune_noise_alpha: -1", [], "neftune_noise_alpha must be a finite number > 0, got -1"),
        ("noise: none\nneftune_noise_alpha: 5", [], "neftune_noise_alpha must be unset when noise is given"),
        ("dataset_train_split: trian", [], "must have a split 'trian'"),
        ("model_name_or_path: nobody/nothing", [], "must run with TRL"),
        ("padding_free: true", [], "max_length"),
        ("packing: true\nmax_length: null", [], "max_length"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, monkeypatch, capsys, text, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(f"extends: quickstart\n{text}\n")
    try:
        status = main(["doctor", "r.yaml", *argv])
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_a_recipe_that_is_not_there(capsys):
    assert main(["doctor", "quikstart"]) == 2 and "did you mean quickstart" in capsys.readouterr().err
    assert main(["doctor"]) == 2 and "doctor needs a recipe" in capsys.readouterr().err


def test_a_trainer_of_any_class_is_examined_as_it_is(llama, tokenizer, tmp_path):
    rows = [{"input_ids": list(range(2, 2 + n)), "labels": list(range(2, 2 + n))} for n in range(20, 44)]
    trainer = transformers.Trainer(
        llama(),
        transformers.TrainingArguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to="none"),
        train_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    before = weights(trainer.model)
    found = examine_trainer(trainer, {"name": "neft_uniform", "alpha": 10})
    ours = found.measured[OURS]
    assert (found.alpha, found.real_model, found.layout.packing, found.layout.documents) == (10, True, None, 4)
    assert abs(ours.ratio_median - 1) < 0.05 and ours.padding_share == ours.no_grad_ratio == 0
    assert same(before, weights(trainer.model)) and not list(tmp_path.iterdir())
    with pytest.raises(NoiseError, match="got 'freelb'"):
        examine_trainer(trainer, "freelb")
    plain = examine_trainer(trainer)
    own = examine_trainer(enable(trainer, "neft_uniform"))
    assert own == plain and own.measured[HOOK].ratio_median < 1 and not trainer.session.history.steps
