"""What a comparison measures at every evaluation."""

import math

import torch
from torch.nn import functional

from neft_zoo.compare.measured_trainer import MeasuredTrainer, measured_sets
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
