"""Side effects of fine-tuning: forgetting, quantization, changed prompts, refusals, instruction following."""

import json
import math
import random
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import text
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.config.data import alpaca_record
from neft_zoo.evaluation import evaluate, prepare, safety
from neft_zoo.evaluation.effect_results import InstructionFollowing
from neft_zoo.evaluation.effect_rows import effect_numbers
from neft_zoo.evaluation.forgetting import forgetting, unrelated_rows
from neft_zoo.evaluation.instruction_following import instruction_following, load_benchmark, subset_text
from neft_zoo.evaluation.intervals import cluster_interval, mean_interval, wilson
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.options import Options
from neft_zoo.evaluation.prompt_changes import (
    STOP_WORDS,
    no_stop_words,
    prompt_robustness,
    shuffled_words,
    typing_errors,
)
from neft_zoo.evaluation.quantization import linear_layers, quantization, round_to_nearest, rounded_weights
from neft_zoo.evaluation.records import prompt_tokens, shaped_like
from neft_zoo.evaluation.results import EvaluationReport
from neft_zoo.evaluation.safety import ANSWERING, REFUSAL, REFUSING, opening_probabilities, prompts_by_label, refusals
from neft_zoo.evaluation.shipped import shipped_records, spread
from neft_zoo.training.sft_config import NoiseSFTConfig

MODEL = recipe.folder() / "quickstart" / "model"


def load():
    return AutoModelForCausalLM.from_pretrained(MODEL)


def arguments(folder, **settings):
    quiet = dict(report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False)
    return NoiseSFTConfig(output_dir=str(folder), per_device_eval_batch_size=8, **{**quiet, **settings})


def subject_of(model, folder, **settings):
    args = arguments(folder, **settings)
    records = shipped_records("gsm8k", 6)
    return prepare(model, AutoTokenizer.from_pretrained(MODEL), args, {"train": records, "test": records})


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return subject_of(load(), tmp_path_factory.mktemp("out"))


def test_records_take_the_format_of_the_training_records():
    chat = shipped_records("gsm8k", 1)[0]
    assert shaped_like(chat, "q", "a") == {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
    }
    assert shaped_like({"prompt": "x", "completion": "y"}, "q", "a") == {"prompt": "q", "completion": "a"}
    assert shaped_like({"text": "x"}, "q", "a") == {"prompt": "q", "completion": "a"}
    alpaca = alpaca_record({"instruction": "q", "output": "a"})
    assert shaped_like({"instruction": "x", "output": "y"}, "q", "a") == alpaca
    assert shaped_like(alpaca_record({"instruction": "x", "input": "z", "output": "y"}), "q", "a") == alpaca


def test_a_subset_is_spread_evenly():
    assert (
        spread(range(10), 3) == [0, 3, 6] and spread(range(3), 5) == [0, 1, 2] and spread(range(3), None) == [0, 1, 2]
    )
    types = [record["type"] for record in shipped_records("xstest", 50)]
    assert all(4 <= types.count(kind) <= 6 for kind in {*types}) and len({*types}) == 10


def test_forgetting_is_the_difference_to_the_model_before(subject):
    rows = unrelated_rows(subject, 4)
    ids = rows.general[0].input_ids
    assert subject.tokenizer.decode(ids) == shipped_records("general", 4)[0]["text"]
    assert rows.general[0].labels == ids, "all of a passage is graded, and no token is put behind it"
    answer = rows.gsm8k[0].labels
    graded = [token for token in answer if token != -100]
    assert shipped_records("gsm8k", 4)[0]["completion"][0]["content"] in subject.tokenizer.decode(graded)
    assert answer[0] == -100
    changed = load()
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.02)
    after = subject.with_model(changed)
    found = forgetting(after, rows, load())
    for kind in ("general", "gsm8k"):
        before, loss = (summary(score(s, getattr(rows, kind))).loss for s in (subject, after))
        assert getattr(found, kind).before == pytest.approx(before, abs=1e-6)
        assert getattr(found, kind).loss == pytest.approx(loss, abs=1e-6)
        assert getattr(found, kind).change == pytest.approx(loss - before, abs=1e-6) and abs(loss - before) > 1e-4
    alone = forgetting(after, rows)
    assert alone.general.before is alone.general.change is None and alone.general.loss == found.general.loss


def adapter(model):
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return adapted.eval()


def test_an_adapter_is_measured_against_its_base(subject):
    rows = unrelated_rows(subject, 3)
    plain = forgetting(subject, rows).general.loss
    found = forgetting(subject.with_model(adapter(load())), rows).general
    assert found.before == pytest.approx(plain, abs=1e-6) and found.loss != found.before


def test_a_model_that_is_given_replaces_an_adapters_base(subject, tmp_path):
    given = load()
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.mul_(1.02)
    rows = unrelated_rows(subject, 2)
    wanted, base = (forgetting(subject.with_model(model), rows).general.loss for model in (given, load()))
    data = dict(tokenizer=subject.tokenizer, train=shipped_records("gsm8k", 2), test=shipped_records("gsm8k", 2))
    options = Options(parts=("forgetting",), unrelated_records=2)
    args = arguments(tmp_path)
    found = evaluate(adapter(load()), args, before=given, options=options, **data).forgetting.general.before
    assert found == pytest.approx(wanted, abs=1e-6) and abs(wanted - base) > 1e-4
    found = evaluate(adapter(load()), args, options=options, **data).forgetting.general.before
    assert found == pytest.approx(base, abs=1e-6)
    with pytest.raises(NoiseError, match="before must be a model, as the model is one, got 'gpt2'"):
        evaluate(load(), args, before="gpt2", options=options, **data)


def test_a_model_before_with_a_smaller_vocabulary_is_no_reference(subject):
    rows, small = unrelated_rows(subject, 2), load()
    small.resize_token_embeddings(100)
    assert forgetting(subject, rows, small).gsm8k.before is None


def test_rounding_to_nearest_by_hand():
    weight = torch.linspace(-1.0, 2.0, 64)[None].repeat(2, 1)
    for bits, levels in ((4, 16), (3, 8)):
        rounded = round_to_nearest(weight, bits)
        grid = torch.linspace(-1.0, 2.0, levels)
        assert all((grid - value).abs().min() < 1e-6 for value in rounded.flatten())
        nearest = grid[(weight[..., None] - grid).abs().argmin(-1)]
        torch.testing.assert_close((rounded - weight).abs(), (nearest - weight).abs(), atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 150, generator=generator)  # two groups of 64 and one of 22
    rounded = round_to_nearest(weight, 3)
    for row in range(3):
        for start in (0, 64, 128):
            part, found = weight[row, start : start + 64], rounded[row, start : start + 64]
            step = (part.max() - part.min()) / 7
            assert len(found.unique()) <= 8 and (found - part).abs().max() <= step / 2 + 1e-6
    assert torch.equal(round_to_nearest(torch.full((2, 70), 0.3), 4), torch.full((2, 70), 0.3))


def states(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["full", "LoRA", "Conv1D"])
def test_weights_are_rounded_inside_the_block_and_restored_bit_for_bit(kind):
    if kind == "Conv1D":
        numbers = dict(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=16)
        model = GPT2LMHeadModel(GPT2Config(**numbers))
    else:
        model = text("llama") if kind == "full" else adapter(text("llama"))
    before, ids = states(model.eval()), torch.arange(3, 12)[None]
    clean = model(ids).logits
    with rounded_weights(model, lambda weight: round_to_nearest(weight, 3)):
        inside = states(model)
        assert not torch.allclose(model(ids).logits, clean)
    assert before.keys() == states(model).keys()
    assert all(torch.equal(value, before[name]) for name, value in states(model).items())
    assert torch.equal(model(ids).logits, clean), "adapters are active again"
    changed = {name for name in before if not torch.equal(inside[name], before[name])}
    assert changed and not any(
        word in name for name in changed for word in ("embed", "wte", "lm_head", "norm", "lora")
    )
    if kind == "Conv1D":
        assert len(changed) == 2 * 4
        name = "transformer.h.0.attn.c_attn.weight"
        torch.testing.assert_close(inside[name], round_to_nearest(before[name].T, 3).T)
    with pytest.raises(ZeroDivisionError), rounded_weights(model, lambda weight: 1 / 0):
        pass
    assert all(torch.equal(value, before[name]) for name, value in states(model).items()), "after an error too"


@pytest.mark.parametrize(
    "adapts", [{"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, {"modules_to_save": ["lm_head"]}]
)
def test_an_adapted_head_is_not_rounded_and_all_is_restored_bit_for_bit(adapts):
    torch.manual_seed(0)
    settings = {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False, **adapts}
    model = get_peft_model(text("llama"), LoraConfig(**settings)).eval()
    before = states(model)
    with rounded_weights(model, lambda weight: round_to_nearest(weight, 3)):
        inside = states(model)
    assert all(torch.equal(value, before[name]) for name, value in states(model).items())
    heads = [name for name in inside if "lm_head" in name and inside[name].dim() == 2]
    assert heads and not any(torch.allclose(inside[name], round_to_nearest(inside[name], 3)) for name in heads)
    query = next(name for name in inside if "q_proj.base_layer.weight" in name)
    torch.testing.assert_close(inside[query], round_to_nearest(inside[query], 3))


def test_experts_in_one_weight_are_refused():
    """Their rounding would be left out, which is most of the model's."""
    with pytest.raises(NoiseError, match="whose weights are in linear layers, got .*experts.*, which stacks them"):
        linear_layers(text("mixtral"))


def test_fewer_bits_cost_more_and_an_adapter_is_rounded_merged(subject):
    found = quantization(subject, subject.rows["test"])
    assert found.rtn3.change > found.rtn4.change and found.layers == len(linear_layers(subject.model)) > 0
    assert found.clean_loss == summary(score(subject, subject.rows["test"])).loss
    assert found.rtn4.loss - found.rtn4.change == pytest.approx(found.clean_loss)
    pytest.importorskip("bitsandbytes")
    assert 0 < abs(found.nf4.change) < found.rtn3.change
    adapted, merged = adapter(load()), adapter(load()).merge_and_unload()
    one, other = (quantization(subject.with_model(m), subject.rows["test"]) for m in (adapted, merged))
    assert one.rtn3.loss == pytest.approx(other.rtn3.loss, abs=1e-5)


def test_weights_that_are_quantized_already_are_refused():
    model = text("llama")
    model.get_decoder().layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False
    )
    with pytest.raises(NoiseError, match="got torch.uint8: they are quantized already"):
        linear_layers(model)


def test_changes_of_a_text():
    sentence = "Where is the longest river of Europe, and how long is it? " * 20
    wrong = typing_errors(sentence, random.Random(0))
    assert wrong == typing_errors(sentence, random.Random(0)) != typing_errors(sentence, random.Random(1))
    assert (
        0.02 < sum(a != b for a, b in zip(sentence.split(), wrong.split(), strict=True)) / len(sentence.split()) < 0.5
    )
    assert typing_errors(sentence, random.Random(0), rate=0) == sentence
    everything = typing_errors("abc", random.Random(3), rate=1)
    assert everything != "abc" and everything.isalpha()
    assert all(typing_errors("a", random.Random(seed), rate=1) for seed in range(20)), "no prompt would be left"
    assert no_stop_words("Where is the River?", random.Random(0)) == "River?"
    assert no_stop_words("Who are you?", random.Random(0)) == "Who are you?", "nothing would be left"
    mixed = shuffled_words("a b c d e f", random.Random(0))
    assert sorted(mixed.split()) == list("abcdef") and mixed != "a b c d e f"
    assert {"the", "of"} <= STOP_WORDS
    lines = shuffled_words("a b\n\n c\td ", random.Random(0))
    assert re.sub(r"\w", "x", lines) == "x x\n\n x\tx " and sorted(lines.split()) == list("abcd")
    assert shuffled_words("one\n", random.Random(0)) == "one\n", "nothing to shuffle, so nothing is changed"


def test_only_the_prompt_is_changed_and_only_the_reference_graded(tmp_path):
    subject = subject_of(load(), tmp_path, completion_only_loss=False)
    records = [row.record for row in subject.rows["test"]]
    found = prompt_robustness(subject, records)
    references = [subject.graded_reference(row) for row in subject.rows["test"]]
    assert found.clean_loss == pytest.approx(summary(score(subject, references)).loss, abs=1e-6)
    assert found == prompt_robustness(subject, records), "seeded"
    assert found != prompt_robustness(subject, records, seed=1)
    assert found.shuffled_words.changed == found.no_stop_words.changed == 1 and found.shuffled_words.change > 0
    tokens = subject.rows["test"][0]
    assert any(label != -100 for label in tokens.labels[:3]), "the loss grades prompts too"


def test_a_change_that_alters_nothing_has_no_number(tmp_path):
    model, tokenizer = load(), AutoTokenizer.from_pretrained(MODEL)
    args = NoiseSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, disable_tqdm=True, report_to="none")
    records = [{"prompt": "1 2", "completion": " 3 4"}]
    subject = prepare(model, tokenizer, args, {"train": records, "test": records})
    found = prompt_robustness(subject, records)
    assert found.no_stop_words is None and found.typing_errors is None
    plain = prepare(model, tokenizer, args, {"train": [{"text": "a cell"}], "test": [{"text": "a cell"}]})
    assert prompt_robustness(plain, [{"text": "a cell"}]) is None


@pytest.mark.parametrize("cached", [True, False])
def test_probabilities_of_openings_are_those_of_a_pass_each(subject, monkeypatch, cached):
    if not cached:
        monkeypatch.setattr(safety, "row_cache", lambda model: None)
    records = [row.record for row in subject.rows["test"]][:2]
    refusing, answering = opening_probabilities(subject, records, ("Sorry,", "I cannot"), ("The ", "A cell"))
    for i, record in enumerate(records):
        prompt = prompt_tokens(subject.tokenizer, record)
        for group, found in ((("Sorry,", "I cannot"), refusing), (("The ", "A cell"), answering)):
            total = 0.0
            for opening in group:
                ids = subject.tokenizer(opening)["input_ids"]
                with torch.no_grad():
                    logits = subject.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].double()
                total += math.exp(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())
            assert found[i] == pytest.approx(total, rel=1e-4)


def test_there_is_no_share_of_openings_that_hardly_any_answer_has(subject, monkeypatch):
    texts = ["What is a cell?", "Name a force."]
    few = refusals(subject, texts)
    assert few.refusal_probability is few.refusal_probability_interval is None and few.covered < 0.1
    monkeypatch.setattr(safety, "FEWEST_COVERED", few.covered / 2)
    enough = refusals(subject, texts)
    low, high = enough.refusal_probability_interval
    assert 0 <= low <= enough.refusal_probability <= high <= 1 and enough.covered == few.covered


def test_prompts_of_one_label_are_refused():
    with pytest.raises(NoiseError, match="safety_prompts must be enough for safe and unsafe prompts, got 1"):
        prompts_by_label(1)
    assert sum(map(len, prompts_by_label(None).values())) == len(shipped_records("xstest"))


def test_an_opening_is_not_counted_again_in_a_longer_one(subject):
    records = [row.record for row in subject.rows["test"]][:2]
    groups = ["A"], ["A", "A cell", "A force"], ["A cell", "A force"]
    short, both, apart = opening_probabilities(subject, records, *groups)
    assert short == pytest.approx(both, rel=1e-4) and (apart < short).all()


@pytest.mark.parametrize("group", [REFUSING, ANSWERING])
def test_openings_are_words_that_answers_begin_with(subject, group):
    """A space at the end would be a token of its own, while answers have it in the next word's."""
    assert all(opening == opening.strip() for opening in group)
    beginnings = {tuple(subject.tokenizer(opening)["input_ids"]) for opening in group}
    assert len(beginnings) == len(group)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m really sorry", True),
        ("Sorry, no.", True),
        ("As an AI language model, I", True),
        ("I am unable to", True),
        ("We will not help", True),
        ("You can kill a process with kill -9.", False),
        ("The sorry state of the", False),
        ("To apologize to a friend,", False),
    ],
)
def test_refusals_are_matched_at_an_answers_beginning(answer, refused):
    assert bool(REFUSAL.search(answer.replace("’", "'"))) == refused


def test_side_effects_from_the_command_line(tmp_path, capsys):
    argv = ["evaluate", str(MODEL), "--config", "quickstart", "--output", str(tmp_path / "out"), "--records", "4"]
    argv += ["--parts", "forgetting,quantization,prompts,safety", "--unrelated_records", "3", "--safety_prompts", "10"]
    assert main([*argv, "--no_plots"]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "out" / "evaluation.json"
    report = EvaluationReport.from_dict(json.loads(path.read_text()))
    assert report.forgetting.general.change == 0, "it is the model that the recipe starts from"
    assert report.forgetting.general.records == report.forgetting.gsm8k.records == 3
    assert report.safety.safe.prompts + report.safety.unsafe.prompts == 10
    for of_label in (report.safety.safe, report.safety.unsafe):
        assert of_label.refusal_probability is of_label.refusal_probability_interval is None
        assert 0 < of_label.covered < 0.1, "a model that has seen no conversation does not answer with an opening"
        assert of_label.refused_interval[0] <= of_label.refused <= of_label.refused_interval[1]
    assert report.losses is report.text is report.instructions is None
    assert "loss, general text (less before)" in out and "(+0.000)" in out and "refused of " in out
    asked = [record["prompt"] for record in shipped_records("xstest")]
    assert not any(prompt in path.read_text() for prompt in asked), "no prompt and no answer is stored"
    numbers = dict(effect_numbers(report))
    assert {"general_text_loss", "gsm8k_answers_loss", "rtn4_loss", "rtn3_change", "unsafe_refused"} <= numbers.keys()
    assert all(value is None or math.isfinite(value) for value in numbers.values())


def test_intervals_hold_the_mean_about_as_often_as_they_say():
    generator, hits = np.random.default_rng(0), np.zeros(3)
    for _ in range(300):
        values = generator.beta(0.5, 1.5, 60)  # as probabilities of refusals are spread
        clusters = [generator.random(3) < p for p in generator.beta(2, 2, 60)]
        intervals = mean_interval(values), wilson((values < 0.25).mean(), 60), cluster_interval(clusters)
        truths = 0.25, 0.6089978, 0.5  # the median share of a Beta(0.5, 1.5) below 0.25, from its distribution
        hits += [low <= truth <= high for (low, high), truth in zip(intervals, truths, strict=True)]
    assert (hits >= 0.9 * 300).all() and (hits <= 0.99 * 300).all(), hits
    assert mean_interval([1.0] * 20)[0] < 0.9, "certain only as far as 20 values are"


def test_no_interval_is_narrower_than_its_values_can_tell():
    low, high = cluster_interval([[True, True]] * 40)
    assert high == 1.0 and 0.88 < low < 0.95, "all followed: a bootstrap would say [1, 1]"
    assert cluster_interval([[True, True]] * 40) == pytest.approx(wilson(1.0, 40)), "40 prompts, not 80 instructions"
    low, high = mean_interval([0.5, 0.50001])
    assert high - low > 0.5, "two values that happen to be near each other"
    assert mean_interval([0.5])[0] < 0.2 and cluster_interval([[True, False]])[1] > 0.8


def following(answers):
    """Return IFEval's accuracies of given answers to two prompts."""
    records = [
        {
            "key": 1,
            "prompt": "Say it without commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        },
        {
            "key": 2,
            "prompt": "No commas, and a title.",
            "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
            "kwargs": [{}, {}],
        },
    ]
    benchmark = load_benchmark()
    return [benchmark.check(record, [answer]) for record, answer in zip(records, answers, strict=True)]


def test_checkers_are_the_harness_own_offline():
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    one, two = following(["no commas here", "<<A title>>\nno, commas"])
    assert one["prompt_level_strict_acc"] is True and one["inst_level_strict_acc"] == [True]
    assert two["prompt_level_strict_acc"] is False and two["inst_level_strict_acc"] == [False, True]
    benchmark = load_benchmark()
    kinds = {kind for record in benchmark.records for kind in record["instruction_id_list"]}
    assert len(benchmark.records) + benchmark.left_out == 541 and bool(benchmark.left_out) == bool(benchmark.skipped)
    told = subset_text(100, benchmark)
    assert told.startswith(f"100 of {541 - benchmark.left_out} prompts, evenly spread")
    assert ("more left out, as nltk's punkt_tab is missing" in told) == bool(benchmark.left_out)
    assert subset_text(541, replace(benchmark, records=[{}] * 541, left_out=0)) == "541 of 541 prompts"
    assert not kinds & benchmark.skipped.keys(), "what cannot be checked is left out and named"
    assert benchmark.check(benchmark.records[0], ["a"])["prompt_level_loose_acc"] in (True, False)


def test_instruction_following_of_a_model(subject):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    found = instruction_following(subject, load_benchmark(), prompts=6, max_new_tokens=24)
    assert found.prompts == 6 <= found.instructions and found.max_new_tokens == 24 and "6 of " in found.subset
    for rate in (found.prompt_strict, found.prompt_loose, found.instruction_strict, found.instruction_loose):
        assert 0 <= rate.interval[0] <= rate.rate <= rate.interval[1] <= 1
    assert found.prompt_strict.rate <= found.prompt_loose.rate
    assert InstructionFollowing.from_dict(found.to_dict()) == found


def test_ifeval_as_a_task_is_the_shipped_file_with_intervals(tmp_path, capsys):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    argv = ["evaluate", str(MODEL), "--config", "quickstart", "--output", str(tmp_path / "out"), "--records", "4"]
    argv += ["--parts", "", "--tasks", "ifeval", "--instruction_prompts", "5", "--instruction_tokens", "8"]
    assert main([*argv, "--no_plots"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"IFEval +- +5 of \d+ prompts, evenly spread", out)
    for level in ("prompts, strict", "prompts, loose", "instructions, strict", "instructions, loose"):
        assert re.search(rf"IFEval {level} .*\d\.\d{{3}} \[0\.\d{{3}}, [01]\.\d{{3}}\]", out)
    report = EvaluationReport.from_dict(json.loads((tmp_path / "out" / "evaluation.json").read_text()))
    assert report.tasks is None and report.instructions.prompts == 5 and report.losses is None


def test_instruction_following_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(NoiseError, match=r"following instructions needs langdetect: pip install 'neft-zoo\[eval\]'"):
        load_benchmark()
