"""ModelHooks: the hooks that add noise to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neft_zoo.noise.additive import AtLayers, Layers, Noise, layer_numbers
from neft_zoo.noise.batch import EMBEDDING, Batch
from neft_zoo.passes.anatomy import embed_scale, find_embedding, text_config
from neft_zoo.passes.call_checks import check_order, check_states
from neft_zoo.passes.call_reader import CallReader
from neft_zoo.passes.compiled import PREDRAWN, Drawn, DrawnForLayer, draw_ahead, draw_for_layers
from neft_zoo.passes.layers import LayerHook, find_backbones, find_layers, last_hidden_state
from neft_zoo.passes.model_outputs import ModelOutputs, logits_of
from neft_zoo.passes.open_pass import CurrentPass, OpenPass, add_noise
from neft_zoo.passes.records import Pass
from neft_zoo.passes.sharding import gather_in_backward
from neft_zoo.passes.torch_internals import UncopiedHook, in_backward

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

# On a layer's input: what was added to it. Checkpointing may compute the layer, its hooks included, again in the
# backward pass, on the same tensor and after the pass was closed (transformers before 5.23; torch's wrapper).
ADDED = "noise_that_was_added"


class ModelHooks:
    """Adds noise to the model's own tensors only while a pass is open and gradients are on.

    So evaluation, generation, reference passes and everything after an exception see the clean model, even in train
    mode. Register the hooks after PEFT has wrapped the model, since some adapters would bypass or copy earlier ones.

    Args:
        model: a transformers or PEFT model.
        layers: also hook and record the inputs of the decoder layers. `True`, "all" and numbers hook every layer;
            layers with these numbers must exist.
        hidden: also record the last hidden state of every pass, and its logits if they are few.
        read: builds a batch from a call's keyword arguments, for calls with other token ids than `open` was given.
        repeats: name of a strategy that repeats its draws, or compares predictions, over several passes, so that each
            pass must call the model on one batch; None for a strategy of one pass.
        reference: also add the noise in passes without gradients, and to these models; None for neither.
        compiled: draw the noise before a pass if possible, and only add it inside.

    Raises:
        NoiseError: if the model lacks a required part or one of the layers.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Layers | bool = False,
        hidden: bool = False,
        read: Callable[[Mapping[str, Any]], Batch] | None = None,
        repeats: str | None = None,
        reference: Sequence[nn.Module | None] | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.outputs = model, ModelOutputs(model)
        self._clean_lookups = 0  # calls of the embedding with gradients, but outside of a pass
        self._current = CurrentPass(shared=reference is not None)
        backbones = find_backbones(model) if hidden else []
        models = [model, *(other for other in reference or () if other is not None)]
        embeddings = self.embeddings = [find_embedding(each) for each in models]
        self._embedding = embeddings[0] if compiled else None
        tapped = [find_layers(each) if layers else [] for each in models]
        self._layers = len(tapped[0])
        if isinstance(layers, tuple):
            layer_numbers(layers, self._layers)
        handles = [embedding.register_forward_hook(self._at_embedding) for embedding in embeddings]
        for index, layer in (pair for each in tapped for pair in enumerate(each)):
            hook = LayerHook(self.at_layer, index)
            handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        handles += [layer.register_forward_hook(self._at_last_layer) for layer in tapped[0][-1:]]
        handles += [backbone.register_forward_hook(self._at_backbone) for backbone in backbones]
        handles += [model.register_forward_hook(self._at_output)] if hidden else []
        self.calls = None if read is None else CallReader(models, self._current, read, repeats, compares=hidden)
        handles += [] if self.calls is None else self.calls.handles
        self._handles: list[UncopiedHook | RemovableHandle] = [UncopiedHook(handle) for handle in handles]
        self._watches_gradients = False

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Copy or pickle as None, so that a copied session registers its own hooks."""
        return type(None), ()

    def detach(self) -> None:
        """Remove all hooks from the model."""
        for handle in self._handles:
            handle.remove()

    def at_gradients(self, check: Callable[[Tensor], None]) -> None:
        """Call a function on every gradient that reaches a weight of the model, until `detach`.

        Args:
            check: the function; once one is set, later ones are ignored.
        """
        if not self._watches_gradients:
            weights = (weight for weight in self.model.parameters() if weight.requires_grad)
            self._handles += [weight.register_hook(check) for weight in weights]
            self._watches_gradients = True

    @contextmanager
    def open(self, noise: Noise | None, batch: Batch | None, edited: Tensor | None = None) -> Iterator[Pass]:
        """Open a pass that adds `noise`, and yield its record.

        Args:
            noise: what is added, or None.
            batch: the batch to draw the noise on; None to read it from the model's calls.
            edited: the token ids that the model is called with, if they differ from the batch's.
        """
        if self._embedding is not None and batch is not None and noise is not None:
            PREDRAWN.drawn = self._ahead(self._embedding, noise, batch)
        opened = self._current.opened = OpenPass(noise, batch, edited)
        try:
            yield opened.record
        finally:
            self._current.opened = None
            PREDRAWN.drawn = {}

    def _ahead(self, embedding: nn.Module, noise: Noise, batch: Batch) -> Mapping[int, Drawn | DrawnForLayer]:
        """Return the noise that can be drawn before the pass, by site."""
        if not isinstance(noise, AtLayers):
            return draw_ahead(embedding, noise, batch)
        width = text_config(self.model).hidden_size
        sites = [noise.site(index) for index in range(self._layers) if self._is_wanted(noise, index)]
        return draw_for_layers(width, noise.noise, batch, sites)

    def _is_wanted(self, noise: AtLayers, index: int) -> bool:
        return index in layer_numbers(noise.layers, self._layers)

    @property
    def clean_calls(self) -> int:
        """The number of calls with gradients outside of a pass: of the embedding, or of a model given embeddings."""
        return self._clean_lookups + (0 if self.calls is None else self.calls.clean_calls)

    @property
    def are_inside_of_embedding(self) -> bool:
        """True where the module that was the embedding lies in another one now, as after PEFT has put LoRA on it."""
        hooked, now = self.embeddings[0], find_embedding(self.model)
        return now is not hooked and hooked in now.modules()

    @property
    def records_layers(self) -> bool:
        """True if the inputs of decoder layers are recorded."""
        return self._layers > 0

    def _at_embedding(self, module: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor | None:
        opened = self._current.opened
        # Counting would make torch.compile compile anew at every call.
        if opened is None and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._clean_lookups += 1
        if opened is None or not self._current.live or opened.record.batch is None:
            return None
        check_order(args[0] if args else None, opened.record.batch, self.model)
        if isinstance(opened.noise, AtLayers):
            return None
        return opened.add(output, EMBEDDING, embed_scale(module))

    def at_layer(self, hidden: Tensor, index: int) -> Tensor | None:
        """Record the input of a decoder layer and return its noisy version, or None if it gets no noise."""
        opened, before = self._current.opened, getattr(hidden, ADDED, None)
        if opened is None and before is not None and in_backward():
            return add_noise(hidden, *before)[0]
        if opened is None:
            return None
        record, wanted = opened.record, opened.noise
        if not self._current.live:
            record.without_gradients = True
            return None
        record.inputs[index] = hidden
        if not isinstance(wanted, AtLayers) or not self._is_wanted(wanted, index):
            return None
        check_states(hidden, record.batch, self.model)
        site = wanted.site(index)
        noisy = opened.add(hidden, site)
        if noisy is not None and record.batch is not None and not torch.compiler.is_compiling():
            setattr(hidden, ADDED, (wanted.noise, record.batch.at(site)))
        return noisy

    def _at_last_layer(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        opened = self._current.opened
        if opened is not None and self._current.live:
            opened.record.inputs[self._layers] = last_hidden_state(output)

    def _at_backbone(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        record = None if self._current.opened is None else self._current.opened.record
        if record is not None and record.batch is not None and torch.is_grad_enabled():
            hidden = last_hidden_state(output)
            gather_in_backward(self.model, hidden)
            # Prompt tuning puts virtual tokens in front.
            record.hidden = hidden[:, -record.batch.input_ids.shape[1] :]

    def _at_output(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        # TRL's fused head returns none of them; a call would be one more frame of torch.compile's.
        some = logits_of(output) is not None or hasattr(output, "start_logits")
        record = None if self._current.opened is None else self._current.opened.record
        if some and record is not None and record.batch is not None and torch.is_grad_enabled():
            self.outputs.keep(output, record, record.batch)
