"""Greedy answers, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GenerationConfig

from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from jaxtyping import Int
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        tokens: ids, without the token that ends the answer.
        text: the tokens as text, without special tokens.
        ended: False if the answer was cut at the greatest length.
    """

    tokens: tuple[int, ...]
    text: str
    ended: bool


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    min_new_tokens: int = 0,
    repetition_penalty: float = 1.0,
    batch_size: int = 8,
    progress: bool = False,
) -> list[Answer]:
    """Return the greedy answer to every prompt.

    Prompts are sorted by length and padded on the left, so that an answer is what the prompt alone would give, up to
    the rounding of batched arithmetic.

    Args:
        model: a causal language model of transformers or PEFT; it is put into eval mode.
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
    ends = end_tokens(model, tokenizer)
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
    for indices in tqdm(by_length(prompts, batch_size), desc="answers", disable=None if progress else True):
        ids, mask = (tensor.to(model.device) for tensor in pad_left([prompts[i] for i in indices]))
        generated = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
        tokens = generated[:, ids.shape[1] :].tolist()
        answers |= {i: _answer(tokenizer, row, ends) for i, row in zip(indices, tokens, strict=True)}
    return [answers[i] for i in range(len(prompts))]


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return the prompts' indices by batch, the longest prompts first: those of a batch are of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Return ids and attention mask of prompts that end in the same column.

    The gap is filled with the prompt's own first token, not with the padding token: that is often the token that ends
    an answer, and a repetition penalty lowers every id of a row, masked or not.
    """
    width = max(map(len, prompts))
    ids = [[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end an answer: the tokenizer's, and those of the model's generation config.

    Raises:
        NoiseError: if there is none.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    candidates = [tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    ends = list(dict.fromkeys(token for token in candidates if token is not None))
    if not ends:
        raise NoiseError("the tokenizer must have a token that ends an answer (eos_token), got none.")
    return ends


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: list[int]) -> Answer:
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:stop], skip_special_tokens=True)
    return Answer(tuple(tokens[:stop]), str(text), stop < len(tokens))
