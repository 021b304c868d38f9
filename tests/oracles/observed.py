"""What the oracles know of a strategy: the batch, the model before it, and what the layers of each pass saw.

Nothing here or in the oracles imports the strategies' own code: a strategy runs through `attach`, hooks on the layers'
first norms record what enters the layers, and the rest is computed again on a copy of the model, one document at a
time, without padding.
"""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from neft_zoo import attach

VOCABULARY, WIDTH = 48, 16
PAD = 0
LENGTHS, PROMPTS = (9, 6), (3, 2)
BOTH_SIDES = pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.slow)])


class Documents:
    """A copy of a model, which reads the documents of a batch one at a time."""

    def __init__(self, model, batch):
        self.model = copy.deepcopy(model)
        real = batch["attention_mask"].bool()
        self.ids = [ids[row] for ids, row in zip(batch["input_ids"], real, strict=True)]
        self.labels = [labels[row] for labels, row in zip(batch["labels"], real, strict=True)]
        self.graded = [labels[1:] != -100 for labels in self.labels]
        self.count = sum(int(graded.sum()) for graded in self.graded)

    def __len__(self):
        return len(self.ids)

    def embedded(self, i):
        """Return the clean embeddings of a document, without their graph."""
        return self.model.get_input_embeddings().weight[self.ids[i]].detach()

    def run(self, i, changes=None):
        """Return the logits at the graded tokens, and every layer's input and output.

        Args:
            i: the document.
            changes: by the number of a layer (0 is the embeddings), a function of its input.
        """
        layers, changes = self.model.model.layers, changes or {}
        inputs, outputs, hooks = {}, {}, []
        for number, layer in enumerate(layers):

            def before(_, args, kwargs, number=number):
                inputs[number] = changes.get(number, lambda state: state)(args[0])
                return (inputs[number], *args[1:]), kwargs

            def after(_, args, output, number=number):
                outputs[number] = output[0]

            hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(layer.register_forward_hook(after))
        try:
            logits = self.model(input_ids=self.ids[i][None], use_cache=False).logits[0, :-1]
        finally:
            for hook in hooks:
                hook.remove()
        return logits[self.graded[i]], inputs, outputs

    def logits(self, i, changes=None):
        return self.run(i, changes)[0]

    def nll(self, i, logits):
        """Return a document's share of the mean loss per graded token of the batch."""
        return cross_entropy(logits, self.labels[i][1:][self.graded[i]], reduction="sum") / self.count

    def mean(self, values):
        """Return a document's share of the mean per graded token of the batch."""
        return values.sum() / self.count

    def gradients(self, loss):
        """Return the gradient of each weight by its name."""
        names, weights = zip(*self.model.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return {n: torch.zeros_like(w) if g is None else g for n, w, g in zip(names, weights, found, strict=True)}


class Observed:
    """One step of a strategy: its loss, its gradients, and the layers' inputs in each of its passes."""

    def __init__(self, model, noise, batch):
        self.documents = Documents(model, batch)
        self.real = batch["attention_mask"].bool()
        self.passes = []
        layers = model.model.layers
        hooks = [layer.input_layernorm.register_forward_pre_hook(self._record(n)) for n, layer in enumerate(layers)]
        with attach(model, noise, total_steps=4) as handle:
            loss = handle.loss(batch)
            loss.backward()
        for hook in hooks:
            hook.remove()
        self.loss = loss.detach()
        self.gradients = {name: weight.grad for name, weight in model.named_parameters()}

    def _record(self, number):
        def hook(_, args):
            if number == 0:
                self.passes.append([])
            self.passes[-1].append(args[0].detach().clone())

        return hook

    def input(self, number, i, layer=0):
        """Return what a document's tokens were at a layer's input in a pass."""
        return self.passes[number][layer][i][self.real[i]]

    def delta(self, number, i):
        """Return what was added to a document's embeddings in a pass, which has clean padding."""
        padding = self.passes[number][0][i][~self.real[i]]
        assert (padding == self.documents.model.get_input_embeddings().weight[PAD]).all()
        return self.input(number, i) - self.documents.embedded(i)


def plus(delta):
    """Return the change of a layer's input that adds a constant."""
    return lambda state: state + delta


def times(mask):
    """Return the change of a layer's input that multiplies it."""
    return lambda state: state * mask


def made_batch(side="right"):
    """Return two documents of different lengths, padded, with ungraded prompts."""
    generator = torch.Generator().manual_seed(7)
    width = max(LENGTHS)
    batch = {name: torch.zeros(2, width, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    batch["labels"] = torch.full((2, width), -100)
    for row, (length, prompt) in enumerate(zip(LENGTHS, PROMPTS, strict=True)):
        where = slice(0, length) if side == "right" else slice(width - length, width)
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator)
        ids[-1] = ids[1]  # a token twice
        batch["input_ids"][row, where] = ids
        batch["attention_mask"][row, where] = 1
        batch["labels"][row, where] = torch.cat([torch.full((prompt,), -100), ids[prompt:]])
    return batch
