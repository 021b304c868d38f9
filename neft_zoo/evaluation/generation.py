"""Batched greedy generation of answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.key_cache import row_cache
from neft_zoo.evaluation.progress import progress_bar
from neft_zoo.passes.anatomy import base_model
from neft_zoo.passes.lm_head import check_numbers
from neft_zoo.passes.positions import check_positions

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STRETCH = 32  # number of tokens after which finished answers leave their batch


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        tokens: token ids, without the end token.
        text: the decoded tokens, without special tokens.
        ended: False if the answer was truncated at the maximum length.
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

    Prompts are sorted by length and left-padded, so every answer equals that of its prompt alone, up to rounding in
    batched arithmetic. Finished answers leave their batch, which continues with the others.

    Args:
        model: a causal language model of transformers or PEFT; it is put into eval mode.
        tokenizer: the model's.
        prompts: token ids, at least one per prompt.
        max_new_tokens: maximum length of an answer, in tokens.
        min_new_tokens: the end token is blocked until the answer has this many tokens.
        repetition_penalty: if above 1, makes tokens of prompt and answer less likely to be repeated.
        batch_size: prompts per batch.
        progress: whether to show a progress bar.

    Raises:
        NoiseError: if a prompt is empty or has no room for an answer, the model has no end token, or its logits are
            nan.
    """
    ends = end_tokens(model, tokenizer)
    if not ends:
        raise NoiseError("the tokenizer must have a token that ends an answer (eos_token), got none.")
    _check_lengths(model, prompts, max_new_tokens)
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
    with progress_bar(None, "answers", total=len(prompts), shown=progress) as bar:
        for indices in by_length(prompts, batch_size):
            ids, mask = (tensor.to(model.device) for tensor in pad_left([prompts[i] for i in indices]))
            cache = row_cache(model)
            with _without_defaults(model):
                tokens = _decode(model, ids, mask, config, cache)
            answers |= {i: _answer(tokenizer, row, ends) for i, row in zip(indices, tokens, strict=True)}
            bar.update(len(indices))
    return [answers[i] for i in range(len(prompts))]


def _check_lengths(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise NoiseError(f"a prompt must have at least one token, got none in prompt {lengths.index(0)}.")
    longest = max(lengths, default=0)
    what = f"a prompt of {longest} tokens and an answer of max_new_tokens={max_new_tokens}"
    check_positions(model, longest + max_new_tokens, what, "shorten either")


def _decode(
    model: PreTrainedModel,
    ids: Int[Tensor, "B L"],
    mask: Int[Tensor, "B L"],
    config: GenerationConfig,
    cache: DynamicCache | None,
) -> list[list[int]]:
    """Return the new tokens of every row, including those after an end token.

    Args:
        model: in eval mode.
        ids, mask: left-padded prompts.
        config: holds the maximum and minimum number of new tokens.
        cache: an empty cache from which rows can be dropped; None generates all rows to the end.
    """
    found: dict[int, list[int]] = {}
    rows, width = torch.arange(len(ids), device=ids.device), ids.shape[1]
    longest, shortest = config.max_new_tokens or 0, config.min_new_tokens or 0
    ends = ids.new_tensor(config.eos_token_id)
    while len(rows):
        done = ids.shape[1] - width
        stretch = longest - done if cache is None else min(STRETCH, longest - done)
        config = copy.copy(config)
        config.max_new_tokens, config.min_new_tokens = stretch, min(max(shortest - done, 0), stretch) or None
        # A model saved after training with gradient checkpointing may say that it uses none.
        config.use_cache = None if cache is None else True
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        numbers = LogitsProcessorList([_Numbers(model)])
        ids = model.generate(**inputs, generation_config=config, logits_processor=numbers)  # type: ignore[operator]
        ended = torch.isin(ids[:, width:], ends).any(1) | (cache is None) | (ids.shape[1] - width == longest)
        found |= dict(zip(rows[ended].tolist(), ids[ended, width:].tolist(), strict=True))
        rows, ids, mask = rows[~ended], ids[~ended], mask[~ended]
        mask = torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], 1)
        if cache is not None:
            cache.batch_select_indices((~ended).nonzero()[:, 0])
    return [found[row] for row in range(len(found))]


class _Numbers(LogitsProcessor):
    """Refuses logits that are nan, of which `generate` would take the first one as the most likely token."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        check_numbers(self.model, scores)
        return scores


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return the indices of the prompts by batch, longest first, so that a batch has prompts of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Return ids and attention mask of left-padded prompts.

    The padding is the prompt's own first token, not the padding token: the latter is often also the end token, and a
    repetition penalty lowers every id in a row, even masked ones.
    """
    width = max(map(len, prompts))
    ids = [[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the end tokens: the tokenizer's, and those of the model's generation config."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    candidates = [tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    return list(dict.fromkeys(token for token in candidates if token is not None))


@contextmanager
def _without_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Leave of a model's generation config only what is said of caches, inside the context.

    Whatever ours leaves open would be taken from it, such as a minimum length or a ban on repeated n-grams.
    """
    owners: list[Any] = [each for each in {model, base_model(model)} if "generation_config" in vars(each)]
    saved = [(owner, owner.generation_config) for owner in owners]
    for owner, own in saved:
        owner.generation_config = GenerationConfig(
            use_cache=own.use_cache, cache_implementation=own.cache_implementation, cache_config=own.cache_config
        )
    try:
        yield
    finally:
        for owner, config in saved:
            owner.generation_config = config


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: list[int]) -> Answer:
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:stop], skip_special_tokens=True)
    return Answer(tuple(tokens[:stop]), str(text), stop < len(tokens))
