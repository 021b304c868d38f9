"""Length, repetition, diversity, overlap and calibration against counts by hand and independent code."""

import math
import unicodedata

import numpy as np
import pytest

from neft_zoo import NoiseError
from neft_zoo.evaluation.answer_results import Lengths, Score
from neft_zoo.evaluation.losses import Scores, calibration_error, summary
from neft_zoo.evaluation.memorization import bleu, follows, overlap, rouge_l
from neft_zoo.evaluation.options import Options
from neft_zoo.evaluation.records import exchange, with_question
from neft_zoo.evaluation.scorers import score_answers
from neft_zoo.evaluation.text import diversity, lengths, log_diversity, repetition
from neft_zoo.evaluation.words import letters_and_digits, words


def test_repetition_by_hand():
    words = "a b a b a".split()
    # ab ba ab ba: 2 of 4 are new; aba bab aba: 2 of 3; abab baba: both.
    assert [repetition(words, n) for n in (1, 2, 3, 4)] == [1 - 2 / 5, 1 / 2, 1 - 2 / 3, 0]
    assert log_diversity(words) == pytest.approx(-math.log(1 - 1 / 2 * 2 / 3))
    assert repetition(["a"], 2) is None and log_diversity(["a", "b", "c"]) is None
    assert log_diversity("a b c d".split(), clip=7.5) == 7.5


def test_diversity_drops_what_is_too_short_and_counts_it():
    texts = ["a b a b a and more", "a b c d e", "short"]
    found = diversity(texts, at_words=5, clip=10)
    assert (found.used, found.too_short, found.at_words) == (2, 1, 5)
    assert found.repetition["2"] == pytest.approx((0.5 + 0) / 2)
    assert found.log_diversity == pytest.approx((-math.log(2 / 3) + 10) / 2)
    missing = diversity(texts)
    assert missing.log_diversity is None and missing.repetition["1"] is None and missing.used == 0


def test_lengths_are_means_and_missing_is_none():
    assert lengths(["ab c", ""], [3, 0]) == Lengths(characters=2, words=1, tokens=1.5)
    assert lengths([]) == Lengths(characters=None, words=None, tokens=None)


def lcs(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_rouge_l_against_a_longest_common_subsequence():
    pairs = [("the cat sat on the mat", "the mat sat on a cat"), ("The cell.", "the cell"), ("", "a b"), ("x", "y")]
    for (answer, reference), found in zip(pairs, rouge_l(*zip(*pairs, strict=True)), strict=True):
        one, other = (text.lower().replace(".", "").split() for text in (answer, reference))
        common = lcs(one, other)
        expected = 2 * common / (len(one) + len(other)) if common else 0  # F of precision c/|a| and recall c/|r|
        assert found == pytest.approx(expected)


SCRIPTS = {
    "Chinese": ("猫坐在垫子上。", "狗坐在垫子上。", 6),
    "Japanese": ("カレーを食べる", "カレーを食べた", 7),
    "Thai": ("แมวอยู่บนเสื่อ", "หมาอยู่บนเสื่อ", 10),
    "Korean": ("고양이가 매트 위에 앉았다", "개가 매트 위에 앉았다", 4),
    "Russian": ("Кот сидел на коврике.", "Пёс сидел на коврике.", 4),
    "Arabic": ("جلست القطة على السجادة", "جلس الكلب على السجادة", 4),
    "Hindi": ("बिल्ली चटाई पर बैठी", "कुत्ता चटाई पर बैठा", 4),
    "French": ("Le chat était là", "Le chien était là", 4),
    "mixed": ("用Python写 the code", "用Java写 the code", 5),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_texts_of_any_script_have_words(script):
    text, other, count = SCRIPTS[script]
    assert lengths([text]).words == count == len(letters_and_digits(text))
    same, different, nothing = rouge_l([text, other, ""], [text] * 3)
    assert same == pytest.approx(1) and 0 < different < 1 and nothing == 0
    assert bleu([text], [text]) == [pytest.approx(1)] and bleu([other], [text])[0] < 1
    assert diversity([f"{text} {text}"], at_words=2 * count).repetition["1"] >= 0.5


@pytest.mark.parametrize("number", ["๒๕๖๗", "២០២៤", "໒໐໒໔", "၂၀၂၄", "꧑꧒", "２０２４"])
def test_digits_of_scripts_without_spaces_are_numbers(number):
    assert words(f"ก{number} {number}") == ["ก", number, number]
    assert letters_and_digits(f"ก{number}") == ["ก", number]
    assert rouge_l([number, "1"], [number] * 2) == [pytest.approx(1), 0]


def test_numerals_that_are_written_as_letters_are_words_of_their_own():
    assert words("二〇二四年") == letters_and_digits("二〇二四年") == list("二〇二四年")
    assert rouge_l(["二四年"], ["二〇〇四年"]) == [pytest.approx(2 * 3 / (3 + 5))]
    assert bleu(["一二三四〇"], ["一二三四〇〇"])[0] < bleu(["一二三四〇〇"], ["一二三四〇〇"])[0]


def test_rouge_of_a_reference_without_words_is_missing_not_0():
    found = overlap(["!!!", "a"], ["!!!", "a"])
    assert found.rouge_l_values == [None, pytest.approx(1)] and found.rouge_l == pytest.approx(1)
    assert bleu(["a", ""], ["", " "]) == [None, None] and overlap(["a"], [""]).bleu is None
    decomposed = unicodedata.normalize("NFD", "naïve")
    assert rouge_l([decomposed], ["naïve"]) == [pytest.approx(1)]


def test_words_in_ascii_are_those_of_rouge_score_and_of_blanks():
    tokenizers = pytest.importorskip("rouge_score.tokenizers")
    text = "Don't do_it: 12,5 o'clock -- e.g. x86-64 (A/B)!"
    assert letters_and_digits(text) == tokenizers.DefaultTokenizer().tokenize(text)
    assert words(text) == text.split()


def test_bleu_by_hand():
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; the answer is as long as the reference.
    found = bleu(["a b c d x", "a b c d e", "q"], ["a b c d e", "a b c d e", "a b c"])
    assert found[0] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert found[1] == pytest.approx(1) and found[2] == pytest.approx(0)
    assert max(bleu(texts := [" ".join("abcdefgh"[:n]) for n in range(1, 9)], texts)) <= 1
    # A shorter answer pays for its brevity.
    assert bleu(["a b c d"], ["a b c d e f"]) == [pytest.approx(math.exp(1 - 6 / 4))]
    assert overlap([], []).rouge_l is None


def test_calibration_by_hand():
    # Bins of width 1/2: (0, .5] holds .5 and .25, the other .75, 1 and 1.
    confidence, correct = np.array([0.5, 0.25, 0.75, 1, 1]), np.array([1, 0, 1, 0, 1], dtype=bool)
    expected = abs(1 - 0.75) / 5 + abs(2 - 2.75) / 5
    assert calibration_error(confidence, correct, bins=2) == pytest.approx(expected)
    assert calibration_error(np.ones(4), np.ones(4)) == 0


def test_summary_weights_every_token_alike():
    one = Scores(np.log([0.5]), np.array([0.5]), np.array([True]))
    two = Scores(np.log([0.25, 0.125]), np.array([0.5, 0.75]), np.array([False, False]))
    found = summary([one, two], bins=4)
    assert found.loss == pytest.approx(2 * math.log(2)) and found.perplexity == pytest.approx(4)
    assert found.record_losses == pytest.approx([math.log(2), 2.5 * math.log(2)])
    assert (found.tokens, found.records, found.accuracy) == (3, 2, pytest.approx(1 / 3))


def test_the_prefix_is_50_tokens_or_half_of_a_short_reference():
    right = np.ones(200, dtype=bool)
    for wrong, expected in ((0, True), (49, True), (50, False), (99, False), (100, True)):
        changed = right.copy()
        changed[wrong] = False
        assert follows(changed) == expected
    assert follows(np.array([False, False, True, True])) and not follows(np.array([True, True, True, False]))


def test_questions_are_changed_where_they_stand():
    def loud(text):
        return text.upper()

    chat = {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "completion": "c"}
    assert [turn["content"] for turn in with_question(chat, loud)["prompt"]] == ["s", "Q"]
    assert chat["prompt"][1]["content"] == "q"
    talk = {"messages": [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]}
    assert [turn["content"] for turn in with_question(talk, loud)["messages"]][2] == "USER"
    assert exchange(talk) == (talk["messages"][:3], "assistant") and exchange({"text": "a"}) is None
    assert with_question({"instruction": "a", "output": "b"}, loud) == {"instruction": "A", "output": "b"}
    assert with_question({"prompt": "a", "completion": "b"}, loud)["prompt"] == "A"


def test_the_prompt_is_all_before_the_last_answer():
    turns = [
        {"role": role, "content": role[0] + str(i)} for i, role in enumerate(["user", "assistant"] * 2 + ["user"])
    ]
    assert exchange({"prompt": turns[:1], "completion": turns[1:4]}) == (turns[:3], "a3")
    changed = with_question({"messages": turns}, str.upper)
    assert [turn["content"] for turn in changed["messages"]] == ["u0", "a1", "U2", "a3", "u4"]
    assert exchange({"messages": turns}) == (turns[:3], "a3")
    greeting = [turns[1], turns[4]]
    assert exchange({"messages": greeting}) is None, "nothing is before the only answer"
    assert with_question({"messages": greeting}, str.upper) == {"messages": greeting}
    call = {"role": "assistant", "content": None, "tool_calls": [{}]}
    assert exchange({"messages": [turns[0], call]}) == (turns[:1], "")


def test_scorers_return_one_finite_number_per_text():
    found = score_answers({"length": lambda texts: [len(text) for text in texts]}, ["ab", "c"])
    assert found == {"length": Score(mean=1.5, values=[2.0, 1.0])}
    for wrong in ([1.0], [1.0, math.nan]):
        with pytest.raises(NoiseError, match="scorer 'bad' must return 2 finite numbers"):
            score_answers({"bad": lambda texts, wrong=wrong: wrong}, ["ab", "c"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": ("loses",)}, "parts must be among"),
        ({"records": 0}, "records must be a whole number >= 1, got 0"),
        ({"words": 60, "max_new_tokens": 50}, "words must be at most max_new_tokens, 50, got 60"),
        ({"rates": (1.5,)}, "rates"),
        ({"alphas": (-1.0,)}, "alphas"),
        ({"templates": {"empty": "no place"}}, "template 'empty' must hold {prompt}"),
    ],
)
def test_options_are_checked(settings, message):
    with pytest.raises(NoiseError, match=message):
        Options(**settings)
