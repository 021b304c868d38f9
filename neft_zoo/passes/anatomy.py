"""The parts of a transformers model: its task, config, token embedding and LM head."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.torch_internals import checkpoint_functions

if TYPE_CHECKING:
    from jaxtyping import Float


def base_model(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT model or another wrapper, or the model itself."""
    unwrap: Any = getattr(model, "get_base_model", None)  # PEFT need not be installed
    if unwrap is not None:
        return unwrap()
    return model if hasattr(model, "get_input_embeddings") else _only_model_in(model)


def _only_model_in(module: nn.Module) -> nn.Module:
    """Return the single transformers model that a module wraps, as in sentence-transformers, or else the module."""
    from transformers import PreTrainedModel

    found = next((each for each in module.modules() if isinstance(each, PreTrainedModel)), module)
    inside = set(found.modules())
    others = (each for each in module.modules() if isinstance(each, PreTrainedModel) and each not in inside)
    return module if next(others, None) is not None else found


def text_config(model: nn.Module) -> Any:
    """Return the config of the language model in a model, or None if it has none."""
    config: Any = getattr(base_model(model), "config", None)
    # A model that also has a text encoder has two text configs.
    return None if config is None else config.get_text_config(decoder=True)


# What a model predicts: the next token, hidden tokens, a class of every token, a class of the sequence, or a span.
Task: TypeAlias = Literal["next token", "masked", "tokens", "sequence", "span"]
# By transformers' name of the model's loss, which it derives from the class name.
TASKS: dict[str, Task] = {
    "ForMaskedLM": "masked",
    "ForTokenClassification": "tokens",
    "ForSequenceClassification": "sequence",
    "ForQuestionAnswering": "span",
}


def task_of(model: nn.Module) -> Task:
    """Return what a model predicts; only next-token losses shift their labels."""
    return TASKS.get(getattr(base_model(model), "loss_type", None) or "", "next token")


def check_classes(model: nn.Module) -> None:
    """Raise unless a classifier chooses one class of several.

    Raises:
        NoiseError: for regression and multi-label models, which have no distribution over classes to compare.
    """
    config = base_model(model).config
    if config.num_labels < 2 or config.problem_type in ("regression", "multi_label_classification"):
        raise NoiseError(
            "an objective that compares predictions needs a model that chooses one of several classes, got "
            f"num_labels={config.num_labels} and problem_type={config.problem_type!r}."
        )


def find_table(model: nn.Module) -> Float[Tensor, "V D"]:
    """Return the weight of a model's token embedding (V, D).

    Raises:
        NoiseError: see `find_embedding`.
    """
    weight = find_embedding(model).weight
    assert isinstance(weight, Tensor)
    return weight


def find_embedding(model: nn.Module) -> nn.Module:
    """Return the token embedding of a model; under PEFT, the module that replaces it.

    Raises:
        NoiseError: if the model has no token embedding, or is an encoder-decoder.
    """
    base = base_model(model)
    try:
        embedding = base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        raise NoiseError(
            f"model must not be an encoder-decoder, got {type(base).__name__}: its encoder and its decoder read one "
            "embedding, and documents, lengths and graded tokens would be those of two sequences."
        )
    if not isinstance(embedding, nn.Module) or isinstance(embedding, nn.ModuleList):
        told = f"{len(embedding)}" if isinstance(embedding, nn.ModuleList) else "none"  # MusicGen: one per codebook
        raise NoiseError(
            f"model must have a token embedding (get_input_embeddings), got {type(base).__name__}, which has {told}."
        )
    return embedding


def embed_scale(embedding: nn.Module) -> float | Tensor:
    """Return the factor that an embedding module multiplies its table by (Gemma: sqrt(D)), 1 for most models."""
    # PEFT may wrap the module.
    found: Any = (module.embed_scale for module in embedding.modules() if hasattr(module, "embed_scale"))
    return next(found, 1.0)


def find_head(model: nn.Module) -> nn.Module | None:
    """Return the module that maps hidden states to logits, or None if the model has none."""
    return getattr(base_model(model), "get_output_embeddings", lambda: None)()


def checkpoints_reentrantly(model: nn.Module) -> bool:
    """Return whether reentrant gradient checkpointing is on, which allows one backward pass only."""
    functions = checkpoint_functions(model)
    return any(isinstance(function, partial) and function.keywords.get("use_reentrant") for function in functions)


def require_dropout(model: nn.Module) -> None:
    """Raise unless the model has active dropout.

    Raises:
        NoiseError: if it has none; the message says what to set.
    """
    idle = {id(dropout) for module in model.modules() for dropout in _unused_dropouts(module)}
    if not any(_drops(module) for module in model.modules() if id(module) not in idle):
        raise NoiseError(
            "two passes of a model without dropout are the same: set lora_dropout in the LoRA config or "
            "attention_dropout in the model's config above 0, got 0 for all."
        )


def _unused_dropouts(module: Any) -> list[nn.Module]:
    """Return the dropout modules of a layer's adapters that are not active."""
    of_adapters = getattr(module, "lora_dropout", None)
    if not isinstance(of_adapters, nn.ModuleDict):
        return []
    return [dropout for name, dropout in of_adapters.items() if name not in module.active_adapters]


def _drops(module: nn.Module) -> bool:
    """Return whether a module is random in training, itself or through a rate that it passes to a function."""
    if isinstance(module, nn.Dropout):
        return module.p > 0
    # The attribute's name differs (OPT: dropout, Llama: attention_dropout, BioGPT: layerdrop, PhiMoE:
    # router_jitter_noise), and a config may have fields that are not used.
    own = (value for name, value in vars(module).items() if "drop" in name or "jitter" in name)
    return any(isinstance(value, float) and value > 0 for value in own)
