"""Forgetting: loss on general text and GSM8K against the model before fine-tuning."""

import json
import shutil

import pytest
import torch
from small_subject import MODEL, adapter, arguments, load

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.config.data import alpaca_record
from neft_zoo.errors import DataWarning
from neft_zoo.evaluation import evaluate
from neft_zoo.evaluation.forgetting import forgetting, unrelated_rows
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.options import Options
from neft_zoo.evaluation.records import shaped_like
from neft_zoo.evaluation.shipped import shipped_records, spread


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


def test_an_adapter_is_measured_against_its_base(subject):
    rows = unrelated_rows(subject, 3)
    plain = forgetting(subject, rows).general.loss
    found = forgetting(subject.with_model(adapter(load())), rows).general
    assert found.before == pytest.approx(plain, abs=1e-6) and found.loss != found.before


def test_a_merged_adapter_is_refused_and_left_as_it_is(subject):
    """PEFT would unmerge it for the losses of its base, and leave it so, with other weights."""
    merged = adapter(load().bfloat16())
    merged.merge_adapter()
    weights = {name: weight.clone() for name, weight in merged.state_dict().items()}
    rows = unrelated_rows(subject, 1)
    with pytest.raises(NoiseError, match="must have an adapter that is not merged into its base model"):
        forgetting(subject.with_model(merged), rows)
    assert all(torch.equal(weight, weights[name]) for name, weight in merged.state_dict().items())
    assert forgetting(subject.with_model(merged), rows, load().bfloat16()).general.change != 0


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
    with pytest.warns(DataWarning, match="no comparison with the model before fine-tuning: it embeds 100 tokens, and"):
        assert forgetting(subject, rows, small).gsm8k.before is None


def test_a_model_before_with_other_token_ids_is_refused(tmp_path, capsys):
    """Both models would read one tokenizer's ids, which mean other words to one of them."""
    other = shutil.copytree(MODEL, tmp_path / "other")
    settings = json.loads((other / "tokenizer.json").read_text())
    vocabulary = settings["model"]["vocab"]
    added = {token["content"] for token in settings["added_tokens"]}
    words = [word for word in vocabulary if word not in added]
    ids = [vocabulary[word] for word in words]
    settings["model"]["vocab"] = {**vocabulary, **dict(zip(words, ids[1:] + ids[:1], strict=True))}
    (other / "tokenizer.json").write_text(json.dumps(settings))
    argv = "--config quickstart --parts forgetting --records 2 --unrelated_records 2 --output".split()
    assert main(["evaluate", str(other), *argv, str(tmp_path / "out")]) == 2
    assert "before must be a model with the tokenizer of the one that is measured" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
