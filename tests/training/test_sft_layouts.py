"""A document's noise has its own size in every layout that TRL's collators make."""

import warnings

import pytest
import torch
import trl
from datasets import Dataset

from neft_zoo import SFTTrainer

ALPHA = 40
LAYOUTS = {
    "padded right": {},
    "padded left": {"left": True},
    "packed, bfd": {"packing": True, "max_length": 96},
    "padding-free": {"padding_free": True, "max_length": None},
    "padding-free, pad_to_multiple_of": {"padding_free": True, "max_length": None, "pad_to_multiple_of": 64},
    "padded, pad_to_multiple_of": {"pad_to_multiple_of": 64},
    "completion only": {"completion_only_loss": True},
    "prompt graded too": {"completion_only_loss": False},
    "assistant only": {"assistant_only_loss": True, "conversation": True},
    "streamed": {"stream": True},
}


@pytest.fixture
def calls(llama):
    """Return a model and the list of its training passes: the inputs, and what was added to the embeddings."""
    model, seen, now = llama(tie_word_embeddings=False), [], {}
    table = model.get_input_embeddings()
    model.register_forward_pre_hook(lambda m, args, kwargs: now.update(kwargs), with_kwargs=True)

    def at_layer(module, args, kwargs):
        if torch.is_grad_enabled():
            seen.append((dict(now), args[0].detach() - table.weight[now["input_ids"]].detach()))

    model.model.layers[0].register_forward_pre_hook(at_layer, with_kwargs=True)
    return model, seen


def documents(inputs):
    """Yield (row, begin, end) of every document, and the positions that are nobody's, from the tensors alone."""
    ids = inputs["input_ids"]
    for row in range(len(ids)):
        if inputs.get("attention_mask") is not None:
            real = inputs["attention_mask"][row].nonzero()[:, 0]
            yield row, int(real[0]), int(real[-1]) + 1
            continue
        places = inputs["position_ids"][row].tolist()
        starts = [i for i, place in enumerate(places) if place == 0]
        ends = [*starts[1:], len(places)]
        yield from ((row, begin, end) for begin, end in zip(starts, ends, strict=True) if end - begin > 1)


def pad_left(features):
    """Collate as TRL does, from the other side: its own collator pads right whatever the tokenizer says."""
    longest = max(len(feature["input_ids"]) for feature in features)
    gaps = [longest - len(feature["input_ids"]) for feature in features]
    ids = torch.tensor([[1] * gap + list(f["input_ids"]) for gap, f in zip(gaps, features, strict=True)])
    mask = torch.tensor([[int(place >= gap) for place in range(longest)] for gap in gaps])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask == 1, -100)}


def conversations(records):
    return Dataset.from_list([{"messages": [*record["prompt"], *record["completion"]]} for record in records])


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "noise on padding, and a length that counts it")
@pytest.mark.cell("Batch layouts", "{layout}")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_document_has_noise_of_its_own_size(calls, config, records, tokenizer, layout):
    settings = dict(LAYOUTS[layout])
    left, stream = settings.pop("left", False), settings.pop("stream", False)
    data = conversations(records) if settings.pop("conversation", False) else records
    model, seen = calls
    trainer = SFTTrainer(
        model,
        args=config(max_steps=2, per_device_train_batch_size=8 if "packing" not in settings else 2, **settings),
        train_dataset=data.to_iterable_dataset() if stream else data,
        processing_class=tokenizer,
        data_collator=pad_left if left else None,
        noise={"name": "neft_uniform", "alpha": ALPHA},
    )
    trainer.train()
    assert len(seen) == 2 and (not left or (seen[0][0]["attention_mask"][:, 0] == 0).any())
    for inputs, added in seen:
        found, outside = list(documents(inputs)), torch.ones(added.shape[:2], dtype=torch.bool)
        assert len(found) > 2
        for row, begin, end in found:
            outside[row, begin:end] = False
            noise, paper = added[row, begin:end], ALPHA / (3 * (end - begin) * 32) ** 0.5
            ratio = noise.square().mean().sqrt().item() / paper
            # Uniform noise: six standard errors of its rms.
            assert abs(ratio - 1) < 6 * 0.45 / noise.numel() ** 0.5, f"document of {end - begin} tokens: {ratio:.3f}"
            assert noise.abs().max() <= paper * 3**0.5 * 1.00001
        assert not added[outside].any(), "noise on padding"


@pytest.mark.cell("Batch layouts", "packed, wrapped (the length is the row's; a warning says so)")
def test_wrapped_packing_warns_that_it_has_no_borders(calls, config, records, tokenizer):
    text = Dataset.from_list([{"text": "the cell divides " * (i + 1)} for i in range(16)])
    settings = dict(packing=True, packing_strategy="wrapped", max_length=32, max_steps=2)
    model, seen = calls
    loud = dict(processing_class=tokenizer, train_dataset=text, noise={"name": "neft_uniform", "alpha": ALPHA})
    with pytest.warns(UserWarning, match="carries no borders of documents: noise takes a whole row for one"):
        trainer = SFTTrainer(model, args=config(**settings), **loud)
    trainer.train()
    for _, added in seen:
        assert added.square().mean().sqrt().item() == pytest.approx(ALPHA / (3 * 32 * 32) ** 0.5, rel=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        SFTTrainer(model, args=config(**settings), **{**loud, "noise": "none"})


class Seen(Exception):  # noqa: N818
    """The first layer has been reached: the rest of the pass is not needed."""


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "packing: 0.07 of the noise on 8 rows of 1,024 tokens; 1.00 here")
def test_the_hook_starves_packed_documents_and_we_do_not(llama, config, tokenizer):
    lengths = [20 + 7 * i % 27 for i in range(300)]
    rows = [[(31 * i + t) % 4000 + 5 for t in range(n)] for i, n in enumerate(lengths)]
    data = Dataset.from_list([{"input_ids": row} for row in rows])
    packed = dict(packing=True, max_length=1024, per_device_train_batch_size=8)
    ratios = {}
    for cls, settings, noise in (
        (trl.SFTTrainer, {"neftune_noise_alpha": ALPHA}, {}),
        (SFTTrainer, {}, {"noise": {"name": "neft_uniform", "alpha": ALPHA}}),
    ):
        model, now = llama(tie_word_embeddings=False), {}
        model.register_forward_pre_hook(lambda m, args, kwargs, now=now: now.update(kwargs), with_kwargs=True)

        def at_layer(module, args, kwargs, model=model, now=now):
            now["added"] = args[0].detach() - model.get_input_embeddings().weight[now["input_ids"]].detach()
            raise Seen

        model.model.layers[0].register_forward_pre_hook(at_layer, with_kwargs=True)
        args = config(**packed, **settings)
        with pytest.raises(Seen):
            cls(model, args=args, train_dataset=data, processing_class=tokenizer, **noise).train()
        found = list(documents(now))
        sizes = [now["added"][0, begin:end].square().mean().sqrt() * (end - begin) ** 0.5 for _, begin, end in found]
        ratios[cls] = torch.stack(sizes) * (3 * 32) ** 0.5 / ALPHA
    assert len(found) > 200 and now["added"].shape[1] > 7000
    assert ratios[trl.SFTTrainer].mean().item() == pytest.approx(len(found) ** -0.5, rel=0.1)
    assert ratios[trl.SFTTrainer].mean() < 0.075
    assert ratios[SFTTrainer].mean().item() == pytest.approx(1, abs=0.005)
