"""Loss of references after prompts with typing errors, without stop words, or shuffled."""

import random
import re

import pytest
from small_subject import MODEL, load, subject_of
from transformers import AutoTokenizer

from neft_zoo.evaluation import prepare
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.prompt_changes import (
    STOP_WORDS,
    no_stop_words,
    prompt_robustness,
    shuffled_words,
    typing_errors,
)
from neft_zoo.training.sft_config import NoiseSFTConfig


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
    lines = no_stop_words("Read the text.\nWhat is the\ncolor of\tit?", random.Random(0))
    assert lines == "Read text.\n\ncolor\t" and no_stop_words("a  cell", random.Random(0)) == " cell"
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
