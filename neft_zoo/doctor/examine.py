"""What stock `neftune_noise_alpha` and a strategy add to a recipe's own batches, without training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoConfig, set_seed
from trl.trainer.utils import get_peft_config, get_quantization_config

from neft_zoo.config.data import as_prompts, read_splits
from neft_zoo.config.measuring import (
    COMPILATION,
    EVALUATION,
    NOISE,
    OUTPUT,
    PROGRESS,
    RECOMPUTATION,
    WORKERS,
    replaced,
)
from neft_zoo.config.options import RunOptions, read_options
from neft_zoo.config.trainer_arguments import init_kwargs
from neft_zoo.doctor.measurements import BATCHES, Source, compare
from neft_zoo.doctor.of_trainer import prepared, real_source, strategy_and_alpha
from neft_zoo.doctor.report import DoctorReport
from neft_zoo.doctor.small_model import embeddings, shrunk
from neft_zoo.errors import NoiseError, one_line
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.preparation import prepare
from neft_zoo.training.session import NoiseSession
from neft_zoo.training.sft_config import NoiseSFTConfig
from neft_zoo.training.trainers import SFTTrainer

PACKED_RECORDS = 1024


def examine(values: Mapping[str, object], origin: Mapping[str, str], real_model: bool = False) -> DoctorReport:
    """Measure what both kinds of noise add to a few batches of a recipe, and return the report.

    Args:
        values: the recipe's options by name.
        origin: file and line of each option, for messages.
        real_model: whether to load the model itself instead of a shrunk one.

    Raises:
        NoiseError: if the recipe cannot be read or run, or its noise is not added to the embeddings.
    """
    options = read_options(values, origin)
    training, model = options.training, options.model
    strategy, alpha = strategy_and_alpha(training.noise, training.neftune_noise_alpha)
    hint = ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer, source = _trainer(options, folder, real_model)
            hint = "" if real_model else "; --real_model takes the model itself instead of a shrunk one"
            compared = compare(trainer, strategy, alpha, source)
    except NoiseError:
        raise
    except Exception as error:  # from four libraries
        raise NoiseError(f"the recipe must run with TRL: {one_line(error)}{hint}.") from None
    name = str(model.model_name_or_path)
    return DoctorReport(
        name, real_model, strategy.to_dict(), alpha, compared.layout, compared.weights, compared.measured
    )


def sample(data: Any, training: NoiseSFTConfig) -> Dataset:
    """Return the records of a few batches, in memory, since packing would otherwise process the whole data set."""
    count = BATCHES * training.per_device_train_batch_size
    count = max(count, PACKED_RECORDS) if training.packing else count
    if hasattr(data, "select"):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(training.seed))
        records = [data[index] for index in order[:count].tolist()]
    else:
        records = list(islice(data, count))
    prompts: Any = as_prompts(Dataset.from_list(records))
    return prompts


def _trainer(
    options: RunOptions, folder: str, real_model: bool
) -> tuple[SFTTrainer, Callable[[NoiseSession, Batch], Source]]:
    """Return the recipe's trainer, with a shrunk model and few records, and a source of embeddings at full width."""
    script, training, model = options.script, options.training, options.model
    name, kept = str(model.model_name_or_path), init_kwargs(training, model)
    config = AutoConfig.from_pretrained(name, revision=kept["revision"], trust_remote_code=kept["trust_remote_code"])
    dtype = kept["dtype"]
    dtype = getattr(config, "dtype", None) if dtype == "auto" else dtype
    dtype = getattr(torch, str(dtype or "float32").removeprefix("torch."))
    data = sample(read_splits(script, training, options.mixture)[script.dataset_train_split], training)
    set_seed(training.seed)
    trainer = SFTTrainer(
        model=name if real_model else shrunk(config, dtype),
        args=_harmless(training, folder, kept if real_model else None),
        train_dataset=data,
        quantization_config=get_quantization_config(model) if real_model else None,
        peft_config=get_peft_config(model),
    )
    if real_model:
        return trainer, real_source
    return trainer, partial(_wide_source, lambda ids: embeddings(config, dtype, name, kept["revision"], ids))


def _harmless(training: NoiseSFTConfig, folder: str, kept: dict[str, Any] | None) -> NoiseSFTConfig:
    """Return the options that affect batches and noise; nothing is saved, reported, compiled or evaluated."""
    own = {"output_dir": folder, "model_init_kwargs": kept}
    return replaced(training, OUTPUT, PROGRESS, EVALUATION, NOISE, RECOMPUTATION, COMPILATION, WORKERS, own)


def _wide_source(
    embeddings: Callable[[Tensor], tuple[Tensor, nn.Module, bool]], session: NoiseSession, batch: Batch
) -> Source:
    """Return the embeddings of the real model, loading only the batch's tokens."""
    ids, rows = batch.input_ids.cpu().unique(return_inverse=True)
    table, model, real = embeddings(ids)
    noise = prepare(session.strategy.noise, model, lambda: session.counts().cpu()[ids])
    device = batch.input_ids.device
    batch = replace(batch, input_ids=rows.to(device))
    return Source(table[rows].to(device), batch, prepared(noise), "real weights" if real else "random weights")
