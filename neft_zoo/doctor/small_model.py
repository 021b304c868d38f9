"""Small models with a real model's architecture, and a real model's embeddings without its layers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from transformers import PreTrainedConfig

from neft_zoo.errors import NoiseError, one_line
from neft_zoo.passes.anatomy import find_embedding

SMALL = {"intermediate_size": 64, "moe_intermediate_size": 64, "num_key_value_heads": 1}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok")
NARROW = 128  # minimum number of features; more than the default k of token_subspace


def shrunk(config: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    """Return a randomly initialized model of the config's class, with two layers and a few heads of the same size."""
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = -(-NARROW // head)
    sizes = SMALL | {"num_attention_heads": heads, "hidden_size": heads * head, "num_hidden_layers": 2}
    return _build(config, sizes | dict.fromkeys(EXPERTS, 2)).to(dtype)


def embeddings(
    config: PreTrainedConfig, dtype: torch.dtype, name: str, revision: str, ids: Tensor
) -> tuple[Tensor, nn.Module, bool]:
    """Return the embeddings of ids, a model without layers that computes them, and whether they are the real weights.

    The model's vocabulary is `ids` alone, numbered from 0. Weights that are not on this machine are initialized at
    random, as in the config, at the real width.

    Args:
        config: of the real model.
        dtype: of the embeddings.
        name, revision: of the real model, a folder or a repository in the hub's cache.
        ids: (N,) token ids; the embeddings are (N, D), with the module's own factor.
    """
    model = _build(config, {"num_hidden_layers": 0, "vocab_size": len(ids), "pad_token_id": None}).to(dtype)
    table: Any = find_embedding(model)
    key = next(key for key, weight in model.named_parameters(remove_duplicate=False) if weight is table.weight)
    rows = _stored_rows(name, revision, key, ids)
    real = rows is not None and rows.shape == table.weight.shape
    with torch.no_grad():
        if rows is not None and real:
            table.weight.copy_(rows)
        return table(torch.arange(len(ids))), model, real


def _build(config: PreTrainedConfig, sizes: dict[str, Any]) -> Any:
    """Return a randomly initialized model of a resized config; sizes that the config lacks are ignored."""
    small = copy.deepcopy(config)
    text = small.get_text_config()
    layers = text.num_hidden_layers
    for field, value in vars(text).items():
        if "layer" in field and isinstance(value, list) and len(value) == layers:
            setattr(text, field, value[: sizes["num_hidden_layers"]])
    for field, value in sizes.items():
        if hasattr(text, field):
            setattr(text, field, value)
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    try:
        if architecture is None:
            return transformers.AutoModelForCausalLM.from_config(small)
        return architecture(small)
    except Exception as error:
        kind = type(config).__name__
        raise NoiseError(
            f"model_name_or_path must be a model that can be shrunk, got a {kind} that cannot "
            f"({one_line(error)}); --real_model takes the model itself."
        ) from None


def _stored_rows(name: str, revision: str, key: str, ids: Tensor) -> Tensor | None:
    """Return rows of a weight in the safetensors files of a local folder or the hub's cache, or None if missing."""
    from safetensors import safe_open

    for file in ("model.safetensors", "model.safetensors.index.json"):
        path = _local_file(name, file, revision)
        if path is None:
            continue
        wanted = key.split(".")[-2:]  # the prefix may differ between versions of a class
        if file.endswith(".json"):
            places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
            shard = next((places[stored] for stored in places if stored.split(".")[-2:] == wanted), None)
            path = shard and _local_file(name, shard, revision)
            if path is None:
                return None
        with safe_open(path, framework="pt") as weights:
            stored = next((stored for stored in weights.keys() if stored.split(".")[-2:] == wanted), None)
            return None if stored is None else weights.get_tensor(stored)[ids]
    return None


def _local_file(name: str, file: str, revision: str) -> Path | None:
    """Return a file in a local folder or in the hub's cache, or None if missing."""
    if Path(name).is_dir():
        return Path(name) / file if (Path(name) / file).exists() else None
    cached = try_to_load_from_cache(name, file, revision=revision)
    return Path(cached) if isinstance(cached, str) else None
