"""What a comparison measures at every evaluation."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from neft_zoo import NoiseError
from neft_zoo.compare.measured_trainer import MeasuredTrainer, measured_sets, steps_of
from neft_zoo.compare.measures import MEASURED_ON, measure
from neft_zoo.compare.metrics import HALVES


def test_a_measured_loss_is_the_exact_mean_over_tokens(llama, config, records, tokenizer):
    sets = {"train": records, "test": records.select(range(7))}
    args = config(per_device_eval_batch_size=3)
    given = dict(train_dataset=records, eval_dataset=sets, processing_class=tokenizer)
    trainer = MeasuredTrainer(llama(), args=args, record={"history": []}, **given)
    found, model = measure(trainer), trainer.model.eval()
    for name in sets:
        tokens, halves, place = [], ([], []), 0
        for batch in trainer.get_eval_dataloader(name):
            labels = batch["labels"][:, 1:]
            with torch.no_grad():
                logits = model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits[:, :-1]
            for row, wanted in zip(logits, labels, strict=True):
                graded = wanted != -100
                own = functional.cross_entropy(row[graded], wanted[graded], reduction="none").tolist()
                tokens += own
                halves[place % 2].extend(own)
                place += 1
        # math.fsum loses nothing, so it has no order; a sum in float32 is off by 1e-8 or more.
        assert math.isclose(found[f"{name}_loss"], math.fsum(tokens) / len(tokens), rel_tol=1e-13)
        for half, own in zip(HALVES, halves, strict=True):
            assert name == "train" or math.isclose(found[half], math.fsum(own) / len(own), rel_tol=1e-7)
    assert set(found) == {"train_loss", "test_loss", *HALVES}


def test_a_control_of_the_grading_is_measured_as_the_others_are(llama, config, records, tokenizer, monkeypatch):
    """On training records, too, and on sets sorted by length."""
    found = {}
    for own in (True, False):
        monkeypatch.setattr(MeasuredTrainer, "graded", True)
        given = dict(train_dataset=records, eval_dataset=records.select(range(7)), processing_class=tokenizer)
        given["eval_dataset"] = measured_sets(given)
        args = config(completion_only_loss=own, per_device_eval_batch_size=3)
        trainer = MeasuredTrainer(llama(), args=args, record={"history": []}, **given)
        found[own] = measure(trainer)
        for name in ("train", "test"):
            lengths = [len(ids) for ids in trainer.eval_dataset[f"{MEASURED_ON}{name}"]["input_ids"]]
            assert lengths == sorted(lengths) and len(set(lengths)) > 1
        assert all(label != -100 for label in trainer.train_dataset[0]["labels"]) is not own
    assert found[True] == found[False]


def test_a_record_is_a_document_where_several_share_a_row(llama, config, records, tokenizer):
    """A packed set is a few flat batches, each of which was once measured as one record."""
    found = {}
    for packing in (False, True):
        given = dict(train_dataset=records, eval_dataset=records.select(range(7)), processing_class=tokenizer)
        given["eval_dataset"] = measured_sets(given)
        args = config(packing=packing, max_length=96, per_device_eval_batch_size=2)
        trainer = MeasuredTrainer(llama(), args=args, record={"history": []}, **given)
        found[packing] = measure(trainer), trainer.record_losses["test"]
    (plain, rows), (packed, documents) = found[False], found[True]
    assert len(rows.counts) == 7 and documents.counts.tolist() == rows.counts.tolist(), "shortest first in both"
    assert documents.means.tolist() == pytest.approx(rows.means.tolist(), abs=1e-4)
    assert [packed[half] for half in HALVES] == pytest.approx([plain[half] for half in HALVES], abs=1e-4)


def test_a_share_of_the_steps_that_leaves_none_is_refused():
    trainer = SimpleNamespace(args=SimpleNamespace(max_steps=6))
    assert [steps_of(trainer, share) for share in (1 / 3, 1 / 6, 2.0)] == [2, 1, 12]
    with pytest.raises(NoiseError, match="share of the recipe's 6 steps must leave one at least, got 0.01"):
        steps_of(trainer, 0.01)
