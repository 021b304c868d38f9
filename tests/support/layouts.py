"""Documents in every batch layout, built without the package."""

import torch

from neft_zoo.noise.batch import Batch

LAYOUTS = ("right", "left", "packed", "padding-free")


def documents(count, seed=0, longest=20, shortest=1):
    """Return random documents of the ids 5 to 4004."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(5, 4005, (n,), generator=generator).tolist() for n in lengths]


def lay_out(docs, layout, **settings):
    """Return the batch and, for every document, its places in the flattened batch; the second halves are graded."""
    labels = [[-100] * (len(d) // 2) + d[len(d) // 2 :] for d in docs]
    if layout in ("right", "left"):
        width = max(map(len, docs))
        starts = [row * width + (width - len(d) if layout == "left" else 0) for row, d in enumerate(docs)]
        shape = len(docs), width
    else:
        starts = [sum(map(len, docs[:i])) for i in range(len(docs))]
        shape = 1, sum(map(len, docs))
    places = [torch.arange(s, s + len(d)) for s, d in zip(starts, docs, strict=True)]
    fields = dict(input_ids=(docs, 0), labels=(labels, -100), attention_mask=([[1] * len(d) for d in docs], 0))
    inputs = {}
    for name, (rows, fill) in fields.items():
        flat = torch.full((shape[0] * shape[1],), fill)
        for row, place in zip(rows, places, strict=True):
            flat[place] = torch.tensor(row)
        inputs[name] = flat.view(shape)
    if layout not in ("right", "left"):
        del inputs["attention_mask"]
        inputs["position_ids"] = torch.tensor([[t for d in docs for t in range(len(d))]])
    if layout == "padding-free":
        inputs["cu_seq_lens_q"] = torch.tensor([0, *map(len, docs)]).cumsum(0).int()
    return Batch.from_inputs(inputs, **settings), places


def embeddings(batch, width=16):
    """Return embeddings that depend on the token alone, none of them 0."""
    table = torch.randn(4005, width, generator=torch.Generator().manual_seed(width))
    return table[batch.input_ids]


def per_document(values, places):
    """Return what stands at every document's places, as arrays."""
    flat = values.detach().flatten(0, 1)
    return [flat[place].numpy() for place in places]


def outside(values, places):
    """Return what stands on padding."""
    flat = values.detach().flatten(0, 1)
    rest = torch.ones(len(flat), dtype=torch.bool)
    rest[torch.cat(places)] = False
    return flat[rest].numpy()
