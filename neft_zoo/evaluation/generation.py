"""Greedy answers, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GenerationConfig

from neft_zoo.errors import NoiseError


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        tokens: ids, without the token that ends the answer.
        text: the same as text, without special tokens.
        ended: False if the answer was cut at the greatest length.
    """

    tokens: tuple[int, ...]
    text: str
    ended: bool


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    min_new_tokens: int = 0,
    repetition_penalty: float = 1.0,
    batch_size: int = 8,
    progress: bool = False,
) -> list[Answer]:
    """Answer every prompt greedily and return the answers in the prompts' order.

    Prompts are sorted by length and padded on the left, so that an answer is what the prompt alone would give, up to
    the rounding of batched arithmetic.

    Args:
        model: a causal language model; it is put into eval mode.
        tokenizer: the model's.
        prompts: token ids, at least one each.
        max_new_tokens: longest answer, in tokens.
        min_new_tokens: the end is blocked until the answer has this many tokens.
        repetition_penalty: above 1, tokens of prompt and answer become less likely to occur again.
        batch_size: prompts a batch.
        progress: show a progress bar.

    Raises:
        NoiseError: if a prompt is empty or the model has no token that ends an answer.
    """
    if not all(prompts):
        empty = [len(prompt) for prompt in prompts].index(0)
        raise NoiseError(f"a prompt must have at least one token, got none in prompt {empty}.")
    ends = _ends(model, tokenizer)
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens or None,
        repetition_penalty=repetition_penalty,
        eos_token_id=ends,
        pad_token_id=pad,
    )
    answers: dict[int, Answer] = {}
    model.eval()
    for chosen in tqdm(by_length(prompts, batch_size), desc="answers", disable=None if progress else True):
        ids, mask = (each.to(model.device) for each in pad_left([prompts[i] for i in chosen]))
        written = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
        answers |= {i: _answer(tokenizer, row, ends) for i, row in zip(chosen, written.tolist(), strict=True)}
    return [answers[i] for i in range(len(prompts))]


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return the numbers of the prompts of each batch: the longest first, those of similar length together."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask (B, L) of prompts that end in the same column.

    The gap is filled with the prompt's own first token: a repetition penalty looks at every id of a row, masked or
    not, and would hold a padding token against the answer, which is often the token that ends it.
    """
    width = max(map(len, prompts))
    ids = [[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's, and those of the model's generation config."""
    config = getattr(model.generation_config, "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(config if isinstance(config, list) else [config])]
    ends = list(dict.fromkeys(token for token in found if token is not None))
    if not ends:
        raise NoiseError("the tokenizer must have a token that ends an answer (eos_token), got none.")
    return ends


def _answer(tokenizer: Any, tokens: list[int], ends: list[int]) -> Answer:
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:stop], skip_special_tokens=True)
    return Answer(tuple(tokens[:stop]), text, stop < len(tokens))
