"""Refusals of safe and unsafe prompts."""

import math

import pytest
import torch

from neft_zoo import NoiseError
from neft_zoo.evaluation import safety
from neft_zoo.evaluation.records import prompt_tokens
from neft_zoo.evaluation.safety import ANSWERING, REFUSAL, REFUSING, opening_probabilities, prompts_by_label, refusals
from neft_zoo.evaluation.shipped import shipped_records


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
