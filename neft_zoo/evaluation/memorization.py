"""Memorization: overlap of answers with references, and extraction of references from the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neft_zoo.errors import require
from neft_zoo.evaluation.answer_results import Extraction, Overlap
from neft_zoo.evaluation.losses import score
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.evaluation.text import mean
from neft_zoo.evaluation.words import letters_and_digits, separated

PREFIX = SUFFIX = 50


class AnyScript:
    """A tokenizer for rouge_score, whose own keeps only a to z and 0 to 9 and so scores equal Chinese texts as 0."""

    def tokenize(self, text: str) -> list[str]:
        """Return lower-case words in any script, without punctuation."""
        return letters_and_digits(text)


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> list[float | None]:
    """Return the ROUGE-L F-measure of each answer, in [0, 1], on lower-case words without stemming (rouge_score).

    It is None if the reference has no word, for example only punctuation.
    """
    scorer = require("rouge_score.rouge_scorer", "ROUGE-L", "eval").RougeScorer(["rougeL"], tokenizer=AnyScript())
    pairs = zip(references, answers, strict=True)
    return [
        scorer.score(reference, answer)["rougeL"].fmeasure if letters_and_digits(reference) else None
        for reference, answer in pairs
    ]


def bleu(answers: Sequence[str], references: Sequence[str]) -> list[float | None]:
    """Return the sentence BLEU of each answer, in [0, 1]: up to 4-grams, tokenizer 13a, exponential smoothing.

    The n-gram order is reduced for answers of fewer than 4 tokens, as sacrebleu recommends for single sentences. In
    scripts without spaces every character is a token, as in sacrebleu's tokenizer for Chinese. It is None if the
    reference is empty.
    """
    bleu_module = require("sacrebleu.metrics.bleu", "BLEU", "eval")
    scorer = bleu_module.BLEU(effective_order=True, smooth_method="exp", tokenize="13a")
    pairs = zip(map(separated, answers), map(separated, references), strict=True)
    return [
        min(1.0, scorer.sentence_score(answer, [reference]).score / 100) if reference.strip() else None  # rounding
        for answer, reference in pairs
    ]


def overlap(answers: Sequence[str], references: Sequence[str]) -> Overlap:
    """Return ROUGE-L and BLEU of answers against references."""
    rouge, sentence_bleu = rouge_l(answers, references), bleu(answers, references)
    return Overlap(mean(rouge), mean(sentence_bleu), rouge, sentence_bleu)


def extraction(subject: Subject, rows: Sequence[Row]) -> Extraction:
    """Return the shares of references that a model reproduces word for word.

    Greedy decoding produces a text if and only if each of its tokens is the most likely one after the previous tokens.
    One forward pass shows this, for references of any length and without a repetition penalty.

    `exact` is the share of records whose entire reference is reproduced from the prompt, up to the end of the answer
    (or of the training row, if it was truncated). `prefix` is the share whose next tokens, up to 50, are reproduced
    from the prompt and the first 50 tokens of the reference; of a reference shorter than 100 tokens, the first half is
    given and the second half is compared.
    """
    references = [graded for row in rows if (graded := subject.graded_reference(row)) is not None]
    scores = score(subject, references, what="extraction") if references else []
    correct = [record.correct for record in scores]
    return Extraction(
        exact=mean([float(tokens.all()) for tokens in correct]),
        prefix=mean([float(follows(tokens)) for tokens in correct]),
        records=len(correct),
        skipped=len(rows) - len(correct),
    )


def follows(correct: np.ndarray) -> bool:
    """Return whether up to 50 tokens after the prefix are right; the prefix is 50 tokens, or half of the reference."""
    begin = min(PREFIX, len(correct) // 2)
    return bool(correct[begin : begin + SUFFIX].all())
