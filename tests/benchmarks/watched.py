"""Small models, data and trainers of both sides, and what their first layer reads during a step."""

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoTokenizer, GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, TrainerCallback

from neft_zoo import NoiseSFTConfig, SFTTrainer
from neft_zoo.config import recipe

warnings.simplefilter("ignore")
datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

ALPHA, SEED = 5.0, 0
HOOK, ZOO = SIDES = ("neftune_noise_alpha", "neft-zoo")
SCRATCH = tempfile.TemporaryDirectory()
TOKENIZER = AutoTokenizer.from_pretrained(recipe.folder() / "quickstart" / "model")


class Call(NamedTuple):
    """One forward pass: its keyword arguments, the table's rows, what the first layer read."""

    inputs: dict[str, Any]
    clean: torch.Tensor
    noisy: torch.Tensor

    @property
    def added(self) -> torch.Tensor:
        return self.noisy.float() - self.clean.float()


class AfterStep(TrainerCallback):
    """Calls a function with the model after every optimizer step; the model is in train mode there."""

    def __init__(self, run: Callable[[Any], None]) -> None:
        self.run = run

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.run(model)


def llama() -> LlamaForCausalLM:
    """Return a random Llama, 64 wide."""
    torch.manual_seed(SEED)
    sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENIZER), pad_token_id=TOKENIZER.pad_token_id, **sizes))


def gemma() -> GemmaForCausalLM:
    """Return a model whose weights are bf16 and whose embeddings have rms 1, as wide as Gemma 2B."""
    torch.manual_seed(SEED)
    sizes = dict(hidden_size=2048, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, head_dim=16)
    model = GemmaForCausalLM(GemmaConfig(vocab_size=512, num_key_value_heads=1, **sizes))
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=2048**-0.5)
    return model.to(torch.bfloat16)


def documents(*lengths: int) -> Dataset:
    """Return random documents of these lengths."""
    generator = torch.Generator().manual_seed(SEED)
    ids = [torch.randint(5, 512, (length,), generator=generator).tolist() for length in lengths]
    return Dataset.from_dict({"input_ids": ids})


def mixed(count: int) -> Dataset:
    """Return documents of 8 to 64 tokens."""
    return documents(*(8 + 11 * i % 57 for i in range(count)))


def scratch() -> str:
    """Return a new folder that is gone when the program ends."""
    return tempfile.mkdtemp(dir=SCRATCH.name)


def trainer(side: str, model: Any, data: Dataset, alpha: float = ALPHA, callbacks: tuple = (), **settings: Any) -> Any:
    """Return a side's trainer: one step on all the data, unless told otherwise."""
    settings = {"output_dir": scratch(), "save_strategy": "no", "per_device_train_batch_size": len(data), **settings}
    settings = {"max_steps": 1, "max_length": None, "seed": SEED, "logging_strategy": "no", **settings}
    settings |= dict(report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True)
    told = dict(train_dataset=data, processing_class=TOKENIZER, callbacks=list(callbacks))
    if side == HOOK:
        made = trl.SFTTrainer(model, args=trl.SFTConfig(neftune_noise_alpha=alpha, **settings), **told)
    else:
        noise = {"name": "neft_uniform", "alpha": alpha}
        made = SFTTrainer(model, args=NoiseSFTConfig(**settings), noise=noise, **told)
    made.remove_callback(transformers.PrinterCallback)
    return made


def calls_of(side: str, data: Dataset, model: Any = None, **settings: Any) -> list[Call]:
    """Train one step and return every forward pass that was made meanwhile."""
    model = llama() if model is None else model
    run = trainer(side, model, data, **settings)
    with watch(model) as calls:
        run.train()
    return calls


@contextmanager
def watch(model: Any) -> Iterator[list[Call]]:
    """Yield a list that receives every forward pass of a model."""
    calls, now = [], {}

    def at_model(module, args, kwargs):
        now["inputs"] = dict(kwargs)

    def at_embedding(module, args):
        # `forward` is the plain lookup, scale included: hooks run in `__call__` only.
        now.update(clean=module.forward(args[0]).detach())

    def at_layer(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        calls.append(Call(noisy=hidden.detach(), **now))

    handles = [
        model.register_forward_pre_hook(at_model, with_kwargs=True),
        model.get_input_embeddings().register_forward_pre_hook(at_embedding),
        model.model.layers[0].register_forward_pre_hook(at_layer, with_kwargs=True),
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def borders(call: Call) -> list[tuple[int, int, int]]:
    """Return row, start and end of every document of a pass."""
    mask, positions = call.inputs.get("attention_mask"), call.inputs.get("position_ids")
    if mask is not None:
        return [(row, 0, int(length)) for row, length in enumerate(mask.sum(1))]
    starts = [*(positions[0] == 0).nonzero()[:, 0].tolist(), positions.shape[1]]
    return [(0, start, end) for start, end in zip(starts, starts[1:], strict=False)]


def rms(values: torch.Tensor) -> float:
    return values.square().mean().sqrt().item()


def nominal(tokens: int, width: int) -> float:
    """Return the rms of the paper's noise on a document."""
    return ALPHA / math.sqrt(3 * tokens * width)


def ratios(call: Call) -> list[float]:
    """Return measured over nominal rms, per document."""
    return [rms(call.added[row, a:b]) / nominal(b - a, call.clean.shape[-1]) for row, a, b in borders(call)]


def ratios_of_64(calls: list[Call]) -> list[float]:
    """Return measured rms over that of the paper's noise on 64 tokens, per pass."""
    return [rms(call.added) / nominal(64, call.clean.shape[-1]) for call in calls]


def mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f}"
