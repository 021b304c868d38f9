"""NoiseMixin: any `transformers.Trainer`, with `noise=`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neft_zoo.batch import Batch, step_key
from neft_zoo.callback import NoiseCallback, write
from neft_zoo.errors import NoiseError
from neft_zoo.measure import measure
from neft_zoo.noise import Noise
from neft_zoo.objectives import Pass
from neft_zoo.registry import Strategy, make
from neft_zoo.tap import EmbeddingTap, find_embedding

if TYPE_CHECKING:
    from transformers import Trainer as Host
else:
    Host = object


class NoiseMixin(Host):
    """Runs the trainer's own loss under a strategy: one pass or several, with noise on the token embeddings.

    Put it before a trainer class: `class MyTrainer(NoiseMixin, Trainer)`.

    Args:
        noise: a strategy's name, a mapping with `name` and arguments, or a `Strategy`; None reads `args.noise` where
            the arguments have such a field, and means no noise otherwise.

    Raises:
        NoiseError: before training, if `noise` is not accepted or meets `neftune_noise_alpha`.
    """

    def __init__(self, *args: Any, noise: str | Mapping[str, Any] | Strategy | None = None, **kwargs: Any) -> None:
        strategy = None if noise is None else make(noise)  # before a model is loaded: a typo costs nothing
        super().__init__(*args, **kwargs)
        configured = getattr(self.args, "noise", None)
        if strategy is not None and configured is not None and make(configured) != strategy:
            raise NoiseError(f"noise is given twice: {strategy.name!r} as an argument and {configured!r} in args.")
        self.strategy = strategy or make(configured if configured is not None else "none")
        if self.args.neftune_noise_alpha is not None:
            raise NoiseError(
                f"neftune_noise_alpha must be unset when noise is given, got {self.args.neftune_noise_alpha!r}: "
                "two noises would add up."
            )
        if self.strategy.noise is not None and self.model is not None:
            find_embedding(self.model)
        self._tap: EmbeddingTap | None = None
        self._measured: dict[str, list[Tensor]] = defaultdict(list)
        self._provenance = NoiseCallback(self.strategy)
        self.add_callback(self._provenance)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._provenance.check(self.args.output_dir, resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self._detach()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if self.strategy.noise is None or not self.model.training or not torch.is_grad_enabled():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        tap, batch, passes = self._attached(), self._read(inputs), list[Pass]()

        def forward(noise: Noise | None) -> Pass:
            with tap.open(noise, batch) as done:
                # TRL writes into the inputs it is given, hence a copy for every pass.
                result = super(NoiseMixin, self).compute_loss(model, dict(inputs), return_outputs, num_items_in_batch)
            done.loss, done.outputs = result if return_outputs else (result, None)
            passes.append(done)
            return done

        loss = self.strategy.objective(forward, self.strategy.noise)
        self._record(passes[0], batch)
        return (loss, passes[-1].outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._measured.items()}
            self._measured.clear()
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            write(Path(output_dir or str(self.args.output_dir)), self.strategy)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            tag_model_card(Path(str(self.args.output_dir)) / "README.md", self.strategy)

    def _attached(self) -> EmbeddingTap:
        """Return the tap of the current model; `model_init` replaces the model inside `train`."""
        if self._tap is None or self._tap.model is not self.model:
            self._detach()
            self._tap = EmbeddingTap(self.model)
        return self._tap

    def _detach(self) -> None:
        if self._tap is not None:
            self._tap.detach()
        self._tap = None

    def _read(self, inputs: Mapping[str, Any]) -> Batch:
        key = step_key(self.args.seed, self.accelerator.process_index, self.state.global_step)
        return Batch.from_inputs(inputs, key=key, progress=self._progress())

    def _progress(self) -> float:
        return min(1.0, self.state.global_step / max(1, self.state.max_steps))

    def _record(self, done: Pass, batch: Batch) -> None:
        for name, value in measure(self.strategy, done, batch).items():
            self._measured[f"noise/{name}"].append(value)


def tag_model_card(card: Path, strategy: Strategy) -> None:
    """Name the noise in a model card, once."""
    from huggingface_hub import ModelCard

    if not card.exists():
        return
    loaded = ModelCard.load(card)
    tags = list(loaded.data.tags or [])
    loaded.data.tags = [*dict.fromkeys([*tags, "neft-zoo", strategy.name])]
    heading = "### Embedding noise"
    if heading not in loaded.text:
        arguments = "".join(f", {name} = `{value!r}`" for name, value in strategy.arguments.items())
        loaded.text += f"\n\n{heading}\n\nTrained with `{strategy.name}`{arguments} (neft-zoo).\n"
    partial = card.with_suffix(".partial")
    loaded.save(partial)
    partial.replace(card)
