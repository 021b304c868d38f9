"""Passes of a small decoder in plain torch, written without the package: what the objectives are compared with."""

import torch

IGNORED = -100


def padded(documents, prompt=2, side="right"):
    """Return a padded batch of documents whose first `prompt` tokens are not graded."""
    width = max(map(len, documents))
    ids = torch.zeros(len(documents), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, document in enumerate(documents):
        begin = 0 if side == "right" else width - len(document)
        places = slice(begin, begin + len(document))
        ids[row, places] = torch.tensor(document)
        mask[row, places] = 1
        labels[row, begin + prompt : begin + len(document)] = torch.tensor(document[prompt:])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def packed(documents, prompt=2):
    """Return the same documents in one row, told apart by their positions."""
    labels = [[IGNORED] * min(prompt, len(d)) + list(d[prompt:]) for d in documents]
    return {
        "input_ids": torch.tensor([sum(map(list, documents), [])]),
        "labels": torch.tensor([sum(labels, [])]),
        "position_ids": torch.tensor([[i for d in documents for i in range(len(d))]]),
        "use_cache": False,  # with a cache, transformers lets the documents see each other
    }


DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20, 21, 22]]
INPUTS = padded(DOCUMENTS)


class Naive:
    """One batch of right-padded documents through a Llama, with a perturbation given by hand."""

    def __init__(self, model, inputs):
        self.model, self.inputs = model, inputs
        self.real = inputs["attention_mask"].bool()
        self.table = model.get_input_embeddings().weight
        self.places = (inputs["labels"][:, 1:] != IGNORED).nonzero().tolist()

    def run(self, deltas=None, kept=None):
        """Return the cross-entropy, the next-token logits at graded places and every layer's output.

        `deltas` maps -1 to what is added to the embeddings, and a layer's number to what is added to its input; `kept`
        maps them to what their input is multiplied by.
        """
        deltas, kept = deltas or {}, kept or {}
        embeds = self.change(self.table[self.inputs["input_ids"]], deltas.get(-1), kept.get(-1))
        states, hooks = [], []
        layers = self.model.model.layers
        for index, layer in enumerate(layers):
            hook = self._changing(deltas.get(index), kept.get(index))
            hooks.append(layer.register_forward_pre_hook(hook))
            hooks.append(layer.register_forward_hook(lambda m, a, output: states.append(output)))
        logits = self.model(inputs_embeds=embeds, attention_mask=self.inputs["attention_mask"]).logits
        for hook in hooks:
            hook.remove()
        graded = torch.stack([logits[row, t] for row, t in self.places])
        targets = torch.stack([self.inputs["labels"][row, t + 1] for row, t in self.places])
        loss = -graded.log_softmax(-1).gather(1, targets[:, None]).mean()
        return loss, graded, states

    def change(self, values, delta, kept):
        values = values if kept is None else values * kept
        return values if delta is None else values + delta.to(values.dtype)

    def _changing(self, delta, kept):
        return lambda module, args: (self.change(args[0], delta, kept), *args[1:])

    def loss(self, deltas=None):
        return self.run(deltas)[0]

    def norms(self, values, per):
        """Return the norm of every document, or token, over real tokens, at every position."""
        values = values * self.real[..., None]
        norm = torch.zeros(*self.real.shape, 1, dtype=values.dtype)
        for row in range(len(values)):
            for t in range(values.shape[1]):
                norm[row, t] = values[row].norm() if per == "document" else values[row, t].norm()
        return norm

    def unit(self, values, per):
        norm = self.norms(values, per)
        return torch.where(norm > 0, values * self.real[..., None] / norm, 0)

    def clip(self, values, radius, per):
        """Return the nearest perturbation inside the ball."""
        norm = self.norms(values, per)
        return torch.where(norm > radius, values * radius / norm, values)


def apart(name, p, q):
    """Return the mean divergence of two sets of logits, from the probabilities."""
    p, q = p.double().softmax(-1), q.double().softmax(-1)
    mean = (p + q) / 2
    return {
        "kl": lambda: (p * (p / q).log()).sum(-1),
        "reverse_kl": lambda: (q * (q / p).log()).sum(-1),
        "symmetric_kl": lambda: (p * (p / q).log() + q * (q / p).log()).sum(-1),
        "js": lambda: (p * (p / mean).log() + q * (q / mean).log()).sum(-1) / 2,
        "hellinger": lambda: 1 - (p * q).sqrt().sum(-1),
    }[name]().mean()


def gradients(model):
    """Take the gradients off a model and return them."""
    found = {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def furthest(one, other):
    """Return the largest difference of two sets of gradients, relative to the largest gradient."""
    assert one.keys() == other.keys() and one
    size = max(value.abs().max().item() for value in other.values())
    return max((one[name] - other[name]).abs().max().item() for name in one) / size


class Quadratic(torch.nn.Module):
    """loss = half of e A e + b e, of the sum e of the embeddings: every derivative is known."""

    def __init__(self, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(64, width, dtype=torch.float64)
        root = torch.randn(width, width, dtype=torch.float64)
        self.register_buffer("curve", root @ root.T)
        self.register_buffer("slope", torch.randn(width, dtype=torch.float64))

    def get_input_embeddings(self):
        return self.embed

    def at(self, total):
        return ((total @ self.curve) * total).sum(-1).mean() / 2 + (total @ self.slope).mean()

    def forward(self, ids):
        return self.at(self.embed(ids).sum(1))


def own(model, inputs):
    return model(inputs["input_ids"])


class Spy:
    """Runs an objective and keeps its step."""

    def __init__(self, objective):
        self.inner, self.family = objective, objective.family
        self.hidden, self.inputs, self.passes = objective.hidden, objective.inputs, objective.passes
        self.check, self.takes = objective.check, objective.takes

    def __call__(self, step, noise):
        self.step = step
        return self.inner(step, noise)
