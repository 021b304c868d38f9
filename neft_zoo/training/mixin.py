"""NoiseMixin: any `transformers.Trainer`, with `noise=`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.passes.anatomy import base_model, find_embedding
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.preparation import prepare
from neft_zoo.passes.special_tokens import known_tokens
from neft_zoo.passes.step import Step
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.hf_internals import (
    PassCounters,
    backward_of,
    check_calls,
    check_engine,
    data_parallel_rank,
    gradient_of,
    is_compiled,
    is_nll,
    token_weight,
)
from neft_zoo.training.noise_monitor import Watch
from neft_zoo.training.noise_stats import measure
from neft_zoo.training.provenance import check_run, tag_model_card, write
from neft_zoo.training.token_counts import count_tokens, load_counts, save_counts

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
        token_counts: how often each token occurs in the training data (V,), for `token_frequency`; None counts them.
        reference: what the reference of DPO and KTO sees: `clean`, the default, or the `same` draw as the policy.

    Raises:
        NoiseError: before training, if `noise` is not accepted or meets `neftune_noise_alpha`.
    """

    # True where the model is called with other inputs than `compute_loss` is: they are read from the call then.
    reads_calls: ClassVar[bool] = False
    # True where `compute_loss` also runs the reference model, which can share the policy's draw then.
    runs_reference: ClassVar[bool] = False

    def __init__(
        self,
        *args: Any,
        noise: str | Mapping[str, Any] | Strategy | None = None,
        token_counts: Tensor | None = None,
        reference: Literal["clean", "same"] = "clean",
        **kwargs: Any,
    ) -> None:
        strategy = None if noise is None else make(noise)  # before a model is loaded: a typo costs nothing
        super().__init__(*args, **kwargs)
        configured = getattr(self.args, "noise", None)
        if strategy is not None and configured is not None and make(configured) != strategy:
            raise NoiseError(f"noise is given twice: {strategy.name!r} as an argument and {configured!r} in args.")
        self.strategy = strategy or make(configured if configured is not None else "none")
        check_engine(self, self.strategy)
        check_calls(self, self.strategy, reference)
        self._tap: ModelHooks | None = None
        self._counts, self._reference = token_counts, reference
        self._measured: dict[str, list[Tensor]] = defaultdict(list)
        self._watch = Watch(self.strategy)
        self._noise: Noise | TokenEdit | None = self.strategy.noise
        self._prepared: nn.Module | None = None
        self._starting = False
        if not self.strategy.clean:
            self._attached()  # what the model cannot do is said before training
            self._detach()
        if self.strategy.weights is not None:
            self.strategy.weights.check(self._bare())

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        resumed = check_run(Path(str(self.args.output_dir)), resume_from_checkpoint, self.strategy)
        self._read_counts(resumed)
        self._starting = resumed is None
        if self.model_init is None:
            self._begin(self._bare())
        try:
            # By path: transformers' own search takes the newest folder, which a killed run may have left torn.
            return super().train(None if resumed is None else str(resumed), *args, **kwargs)
        finally:
            self._starting = False
            self._detach()

    def call_model_init(self, *args: Any, **kwargs: Any) -> nn.Module:
        model = super().call_model_init(*args, **kwargs)
        self._begin(model)
        return model

    def _hp_search_setup(self, trial: Any) -> None:
        """Raise where a trial has changed `args.noise`: the strategy was made with the trainer, before the search."""
        super()._hp_search_setup(trial)
        configured = getattr(self.args, "noise", None)
        if configured is not None and make(configured) != self.strategy:
            raise NoiseError(
                f"hp_space must leave noise as the trainer was made with, {self.strategy.name!r}, got {configured!r}; "
                "make a trainer for each noise."
            )

    def _begin(self, model: nn.Module) -> None:
        """Change the weights that a run starts from, where the strategy does so."""
        if getattr(self, "_starting", False) and self.strategy.weights is not None:
            self.strategy.weights.begin(model, step_key(self.args.seed, 0, 0))

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        if self.strategy.weights is None:
            return super().training_step(model, inputs, *args, **kwargs)
        # Every rank must train the same perturbed weights, hence no rank in the key.
        key = step_key(self.args.seed, 0, self.state.global_step)
        with self.strategy.weights.around(self._bare(), key, self._progress()):
            return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if self.strategy.clean or not model.training or not torch.is_grad_enabled():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs, counted = None, PassCounters(self)

        def compute(input_ids: Tensor | None) -> Tensor:
            nonlocal outputs
            # TRL writes into the inputs it is given, hence a copy for every pass, and counts every pass.
            counted.rewind()
            copy = dict(inputs) if input_ids is None else {**inputs, "input_ids": input_ids}
            result = super(NoiseMixin, self).compute_loss(model, copy, return_outputs, num_items_in_batch)
            loss, outputs = result if isinstance(result, tuple) else (result, None)
            return loss

        known = None if self.reads_calls else self._read(inputs)
        weight = token_weight(self, num_items_in_batch)
        step = Step(self._attached(), known, compute, weight, is_nll(self, super().compute_loss))
        step.backward = None if return_outputs or self.reads_calls else backward_of(self, num_items_in_batch)
        step.gradient = gradient_of(self)
        loss = self.strategy.objective(step, self._noise)
        self._record(step)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            means = {name: torch.stack(values).mean().item() for name, values in self._measured.items()}
            logs |= {f"noise/{name}": mean for name, mean in means.items()}
            self._measured.clear()
            if self.is_world_process_zero():
                self._watch.judge(means)
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            write(folder, self.strategy)
            if self._counts is not None:
                save_counts(folder, self._counts)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            tag_model_card(Path(str(self.args.output_dir)) / "README.md", self.strategy)

    def _attached(self) -> ModelHooks:
        """Return the tap of the current model; `model_init` replaces the model inside `train`."""
        if self._tap is None or self._tap.model is not self.model:
            self._detach()
            layers = (
                self.strategy.noise.layers
                if isinstance(self.strategy.noise, AtLayers)
                else self.strategy.objective.inputs
            )
            self.strategy.objective.check(self._bare())
            self._tap = ModelHooks(
                self._bare(),
                layers=layers,
                hidden=self.strategy.objective.hidden,
                read=self._read if self.reads_calls else None,
                reference=[getattr(self, "ref_model", None)] if self._reference == "same" else None,
                compiled=is_compiled(self.accelerator),
            )
            if self._prepared is not self.model:  # once: a resumed run's table has been trained already
                self._noise = prepare(self.strategy.noise, self._bare(), self._count_tokens)
                self._prepared = self.model
        return self._tap

    def _count_tokens(self) -> Tensor:
        if self._counts is None:
            table: Any = find_embedding(self._bare())
            self._counts = count_tokens(self.train_dataset, len(table.weight))
        return self._counts

    def _read_counts(self, checkpoint: Path | None) -> None:
        """Go on with the counts of the run that is resumed, should its data have changed."""
        saved = None if checkpoint is None else load_counts(checkpoint)
        if saved is not None and self._counts is not None and not torch.equal(saved, self._counts.cpu()):
            self._counts = saved
            self._prepared = None  # the next pass prepares the noise anew

    def _bare(self) -> nn.Module:
        assert self.model is not None  # it is only None in transformers' annotations
        return self.model

    def _detach(self) -> None:
        if self._tap is not None:
            self._tap.detach()
        self._tap = None

    def _read(self, inputs: Mapping[str, Any]) -> Batch:
        key = step_key(self.args.seed, data_parallel_rank(self.accelerator), self.state.global_step)
        tokens = known_tokens(self.processing_class, getattr(base_model(self._bare()), "config", None))
        return Batch.from_inputs(inputs, key=key, progress=self._progress(), **tokens)

    def _progress(self) -> float:
        return min(1.0, self.state.global_step / max(1, self.state.max_steps))

    def _record(self, step: Step) -> None:
        for name, value in measure(self.strategy, step).items():
            self._measured[name].append(value)
        self._watch.look(step)
