"""What a strategy drew, observed from outside, and what one document alone gives: the means of these oracles.

Nothing here calls the package but `attach` and its handle. A draw is read from the data flow: what the first layer
reads, less the table's rows, or a weight inside the step, less the weight before it.
"""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from datasets import Dataset
from scipy import stats
from short_run import short_run
from torch.nn import functional as F

import neft_zoo

IGNORED, PADDING = -100, 1
ACCURATE = dict(rtol=1e-9, atol=1e-12)


def padded(documents, prompts):
    """Return a right-padded batch; the first tokens of each document, as many as its prompt, are not graded."""
    shape = len(documents), max(map(len, documents))
    ids, mask, labels = torch.full(shape, PADDING), torch.zeros(shape, dtype=int), torch.full(shape, IGNORED)
    for row, (document, prompt) in enumerate(zip(documents, prompts, strict=True)):
        ids[row, : len(document)] = torch.as_tensor(document)
        mask[row, : len(document)] = 1
        labels[row, prompt : len(document)] = torch.as_tensor(document[prompt:])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# Special tokens begin and end the prompt and end the answer: 2, 3 and 0 of the fixture's tokenizer.
TWO = padded([[2, 6, 7, 3, 9, 10, 11, 12, 13, 14, 0], [2, 21, 3, 21, 24, 25, 0]], prompts=[4, 3])


def many(rows=8, length=64, vocabulary=64, seed=0):
    """Return a batch for statistics: every second document has half the length, and half of each is prompt."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [length // (1 + row % 2) for row in range(rows)]
    documents = [torch.randint(4, vocabulary, (n,), generator=generator).tolist() for n in lengths]
    return padded(documents, [n // 2 for n in lengths])


def small(llama, **config):
    """Return a float64 Llama in train mode whose norms are not all one."""
    model = llama(**{"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, **config}).double().train()
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


def mean_of_graded(model, inputs):
    """Return a pass's mean loss of the graded tokens in float64, where the model's own loss is in float32."""
    logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=IGNORED)


def decoder(model):
    """Return the decoder of a causal model, in an adapter or not."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


@contextmanager
def watched(text):
    """Return a context that sees the ids that the table is asked for, and what each layer reads and returns."""
    seen = SimpleNamespace(ids=[], read=[[] for _ in text.layers], returned=[[] for _ in text.layers])
    hooks = [text.embed_tokens.register_forward_pre_hook(lambda _, args: seen.ids.append(args[0].clone()))]
    for number, layer in enumerate(text.layers):
        read, returned = seen.read[number], seen.returned[number]
        # A layer's first module reads what the layer works with, whichever hook added to it.
        hooks += [layer.input_layernorm.register_forward_pre_hook(lambda _, args, r=read: r.append(args[0].detach()))]
        hooks += [layer.register_forward_hook(lambda _, __, out, r=returned: r.append(out.detach()))]
    yield seen
    for hook in hooks:
        hook.remove()


def gradients(model):
    """Return the gradient of each trained weight, 0 if there is none."""
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    return {name: torch.zeros_like(w) if w.grad is None else w.grad.clone() for name, w in trained}


def weights(model):
    """Return a copy of each weight."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def run(model, noise, inputs=TWO, steps=(0,), total_steps=10, **settings):
    """Return for each step what was seen, and the loss, gradients and weights in it.

    Args:
        settings: those of `attach`, and `compute`, the loss of a pass; `backward`; `text`, the decoder to watch; and
            `first`, what is done once with the handle.
    """
    compute, backward = settings.pop("compute", mean_of_graded), settings.pop("backward", True)
    text, first = settings.pop("text", None) or decoder(model), settings.pop("first", None)
    loss_of_a_pass, outcomes = {} if compute is None else {"compute": compute}, []
    with neft_zoo.attach(model, noise, total_steps=total_steps, **settings) as handle:
        if first:
            first(handle)
        for step in steps:
            model.zero_grad()
            with watched(text) as seen, handle.perturbed(step=step):
                seen.weights = weights(model)
                seen.loss = handle.loss(inputs, step=step, **loss_of_a_pass)
                if backward:
                    seen.loss.backward()
            seen.gradients, seen.loss = gradients(model), seen.loss.detach()
            outcomes.append(seen)
    return outcomes


class _BeforeOptimizer(transformers.TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = gradients(model)


def trained(model, noise, inputs, tokenizer, folder, **settings):
    """Return what was seen in one step of the trainer on all documents of a batch, and the batch as it was passed."""
    rows = zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"].sum(1), strict=True)
    data = [
        {"input_ids": ids[:n].tolist(), "completion_mask": (y != IGNORED)[:n].long().tolist()} for ids, y, n in rows
    ]
    settings |= dict(max_steps=1, per_device_train_batch_size=len(data), max_grad_norm=1e9, max_length=None)
    arguments = neft_zoo.NoiseSFTConfig(**short_run(folder, noise=noise, completion_only_loss=True, **settings))
    told = dict(model=model, args=arguments, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    trainer = neft_zoo.SFTTrainer(**told, callbacks=[before := _BeforeOptimizer()])
    with watched(model.model) as seen:
        trainer.train()
    seen.gradients, seen.loss = before.gradients, torch.tensor(trainer.state.log_history[0]["loss"])
    order = [inputs["input_ids"].tolist().index(row) for row in seen.ids[0].tolist()]
    return seen, {key: value[order] for key, value in inputs.items()}


def table_of(model):
    return decoder(model).embed_tokens.weight


def added(seen, model, inputs=TWO):
    """Return what the first layer of the last pass read, less the table's rows."""
    return seen.read[0][-1] - table_of(model).detach()[inputs["input_ids"]]


def alone(model, inputs=TWO, edit=lambda row, clean: clean, targets=None, before_layers=None, weight=1.0, values=None):
    """Return the loss and gradients of documents that pass one by one, without padding.

    Args:
        edit: returns the embeddings that the first layer is to read, from a row's number and its table rows.
        targets: (rows, tokens) labels; by default those of the inputs.
        before_layers: for each layer, what is added to what it reads, by row.
        weight: factor of each token's loss, or a function of the token's log-probability.
        values: the model's weights, by name; by default those that it has.
    """
    twin = copy.deepcopy(model)
    twin.zero_grad()
    if values is not None:
        for name, parameter in twin.named_parameters():
            parameter.data.copy_(values[name])
    targets = inputs["labels"] if targets is None else targets
    total = torch.zeros((), dtype=torch.float64)
    for row, real in enumerate(inputs["attention_mask"].bool()):
        hooks = [] if before_layers is None else _adding(decoder(twin).layers, before_layers, row, real)
        # A row of `padding_idx` gets no gradient in torch.
        embedded = edit(row, decoder(twin).embed_tokens(inputs["input_ids"][row, real]))
        logs = twin(inputs_embeds=embedded[None]).logits[0, :-1].log_softmax(-1)
        label = targets[row, real][1:]
        graded = label != IGNORED
        log = logs[graded].gather(1, label[graded][:, None])[:, 0]
        total = total - ((weight(log) if callable(weight) else weight) * log).sum()
        for hook in hooks:
            hook.remove()
    loss = total / (targets[:, 1:] != IGNORED).sum()
    loss.backward()
    return loss.detach(), gradients(twin)


def _adding(layers, before_layers, row, real):
    def hook(noise):
        return lambda _, args: (args[0] + noise[row, real][None], *args[1:])

    return [layer.register_forward_pre_hook(hook(noise)) for layer, noise in zip(layers, before_layers, strict=True)]


def agree(seen, expected, tolerance=ACCURATE):
    """Check a step's loss and every gradient against those of an oracle."""
    loss, expected_gradients = expected
    torch.testing.assert_close(seen.loss.double(), loss, **tolerance)
    assert seen.gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(seen.gradients[name], gradient, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
    assert any(gradient.abs().max() > 1e-4 for gradient in expected_gradients.values())


def uncorrelated(one, other):
    """Check that equally many draws, symmetric about 0, agree in sign as often as not, within 4.5 sigma."""
    signs = (one * other).sign().flatten()
    signs = signs[signs != 0]
    assert len(signs) > 100
    assert abs(signs.mean()) < 4.5 / len(signs) ** 0.5


def likely(values, distribution):
    """Check with a Kolmogorov-Smirnov test that values follow a distribution."""
    assert stats.kstest(np.asarray(values).ravel(), distribution.cdf).pvalue > 1e-3


def per_token(z):
    """Check that z is N(0, 1) in all of its coordinates and, by the sum of their squares, in each token alone."""
    likely(z, stats.norm)
    likely(z.square().sum(-1), stats.chi2(z.shape[-1]))
