"""Every carrier of documents is read, alone and with others; what is masked changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neft_zoo import NoiseError, make
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.carriers import CARRIERS

PAD = 2
DOCUMENTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [5, 6]]
WIDTH = 8


def flat(documents):
    """Return the ids of documents in one row, with labels for all but the first half of each."""
    labels = [[-100] * (len(d) // 2) + d[len(d) // 2 :] for d in documents]
    return {"input_ids": torch.tensor([sum(documents, [])]), "labels": torch.tensor([sum(labels, [])])}


def padded(documents, side="right", pad=PAD):
    """Return one row a document, and its mask."""
    width = max(map(len, documents))
    rows = {"input_ids": [], "labels": [], "attention_mask": []}
    for document in documents:
        gap = width - len(document)
        values = {"input_ids": (document, pad), "attention_mask": ([1] * len(document), 0)}
        values["labels"] = (flat([document])["labels"][0].tolist(), -100)
        for name, (row, fill) in values.items():
            rows[name].append([fill] * gap + row if side == "left" else row + [fill] * gap)
    return {name: torch.tensor(values) for name, values in rows.items()}


def positions(documents):
    return torch.tensor([[i for document in documents for i in range(len(document))]])


def numbers(documents, first=1):
    return torch.tensor([[number for number, document in enumerate(documents, first) for _ in document]])


def borders(documents):
    return torch.tensor([0, *map(len, documents)]).cumsum(0).int()


def with_tail(inputs, count=3, **fills):
    """Return a row with padding behind it; every argument is filled with the value that is given for it."""
    fills = {"input_ids": PAD, "labels": -100, **fills}
    return {name: torch.nn.functional.pad(inputs[name], (0, count), value=fill) for name, fill in fills.items()}


def blocks(mask):
    """Return a causal mask (B, 1, L, L) between positions of one number, additive and with nothing on padding."""
    visible = (mask[:, None] == mask[:, :, None]) & (mask[:, None] > 0)
    visible &= torch.ones(mask.shape[1], mask.shape[1]).tril().bool()
    return torch.where(visible, 0.0, torch.finfo(torch.bfloat16).min)[:, None]


def neat_packing(documents, positions_too):
    row = with_tail({**flat(documents), "attention_mask": numbers(documents)}, attention_mask=0)
    row["attention_mask"] = blocks(row["attention_mask"])
    if positions_too:
        row["position_ids"] = torch.nn.functional.pad(positions(documents), (0, 3))
    return row


def three_planes(documents):
    return positions(documents).expand(3, 1, -1)


def ones_over_the_tail(documents):
    row = flat(documents)
    extra = {"position_ids": positions(documents), "attention_mask": torch.ones_like(row["input_ids"])}
    return with_tail({**row, **extra}, position_ids=0, attention_mask=1)


def positions_over_the_tail(documents):
    row = ones_over_the_tail(documents)
    row["position_ids"][:, -3:] = torch.arange(3) + len(documents[-1])
    return row


# One line for every way in which a library hands over documents: what a collator would make of them.
WAYS = {
    "transformers, TRL: padded on the right": padded,
    "transformers, TRL: padded on the left": lambda d: padded(d, "left"),
    "positions count from 0 in every row": lambda d: {
        **padded(d),
        "position_ids": torch.arange(max(map(len, d)))[None],
    },
    "positions of one dimension": lambda d: {**padded(d), "position_ids": torch.arange(max(map(len, d)))},
    "DataCollatorWithFlattening": lambda d: {**flat(d), "position_ids": positions(d)},
    "its position_ids_start": lambda d: {**flat(d), "position_ids": positions(d) + 2},
    "its return_seq_idx": lambda d: {**flat(d), "position_ids": positions(d), "seq_idx": numbers(d, 0).int()},
    "its return_flash_attn_kwargs": lambda d: {
        **flat(d),
        "position_ids": positions(d),
        "cu_seq_lens_q": borders(d),
        "cu_seq_lens_k": borders(d),
    },
    "Mamba: seq_idx with padding": lambda d: with_tail({**flat(d), "seq_idx": numbers(d, 0)}, seq_idx=-1),
    "MosaicML: sequence_id": lambda d: {**flat(d), "sequence_id": numbers(d, 0)},
    "borders of queries": lambda d: {**flat(d), "cu_seq_lens_q": borders(d)},
    "borders of keys": lambda d: {**flat(d), "cu_seq_lens_k": borders(d)},
    "flash-attn: cu_seqlens": lambda d: {**flat(d), "cu_seqlens": borders(d)[None]},
    "flash-attn: cu_seqlens_q": lambda d: {**flat(d), "cu_seqlens_q": borders(d)},
    "flash-attn: cu_seqlens_k": lambda d: {**flat(d), "cu_seqlens_k": borders(d)},
    "borders that end before the padding": lambda d: {**with_tail(flat(d)), "cu_seqlens": borders(d)},
    "borders that are padded": lambda d: {**flat(d), "cu_seqlens": torch.cat([borders(d), torch.zeros(2).int()])},
    "borders through what a mask leaves": lambda d: {**padded(d), "cu_seq_lens_q": borders(d)},
    "Axolotl: numbers in the mask": lambda d: with_tail(
        {**flat(d), "attention_mask": numbers(d), "position_ids": positions(d)}, attention_mask=0, position_ids=0
    ),
    "Axolotl, LLaMA-Factory: a mask of ones over the padding": ones_over_the_tail,
    "the same, with positions that go on": positions_over_the_tail,
    "LLaMA-Factory: neat_packing": lambda d: neat_packing(d, True),
    "a mask of blocks alone": lambda d: neat_packing(d, False),
    "a mask of blocks that says True": lambda d: {**flat(d), "attention_mask": blocks(numbers(d)) == 0},
    "a mask of blocks for every kind of layer": lambda d: {
        **flat(d),
        "attention_mask": {"sliding_attention": None, "full_attention": blocks(numbers(d))},
    },
    "Qwen-VL: three planes": lambda d: {**flat(d), "position_ids": three_planes(d)},
    "Qwen-VL: four planes": lambda d: {**flat(d), "position_ids": positions(d).expand(4, 1, -1)},
    "ms-swift: positions of the text beside three planes": lambda d: {
        **flat(d),
        "position_ids": three_planes(d),
        "text_position_ids": positions(d),
    },
    "padded without a mask": lambda d: {name: v for name, v in padded(d).items() if name != "attention_mask"},
}


def drawn(inputs):
    """Return keys and lengths document by document."""
    batch = Batch.from_inputs(inputs, key=3, pad_id=PAD)
    kept = [batch.real & (batch.document == number) for number in batch.document[batch.real].unique()]
    return [(batch.keys[where].tolist(), batch.lengths[where].tolist()) for where in kept]


@pytest.mark.parametrize("way", WAYS)
def test_a_document_is_read_as_if_it_stood_alone(way):
    assert drawn(WAYS[way](DOCUMENTS)) == drawn(padded(DOCUMENTS))
    assert all(
        lengths == [len(d)] * len(d) for d, (_, lengths) in zip(DOCUMENTS, drawn(WAYS[way](DOCUMENTS)), strict=True)
    )


def test_every_carrier_has_a_way():
    assert {*CARRIERS} == {name for way in WAYS.values() for name in way(DOCUMENTS)} - {"input_ids", "labels"}


LISTS = st.lists(st.lists(st.integers(3, 9), min_size=2, max_size=6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(LISTS, st.sampled_from([*WAYS]))
def test_any_layout_of_the_same_documents_draws_the_same(documents, way):
    assert drawn(WAYS[way](documents)) == drawn(padded(documents))


@settings(max_examples=60, deadline=None)
@given(LISTS, st.randoms(use_true_random=False), st.booleans())
def test_masked_columns_anywhere_change_nothing(documents, random, packed):
    row = flat(documents) if packed else flat(documents[:1])
    row["attention_mask"] = torch.ones_like(row["input_ids"])
    if packed:
        row["position_ids"] = positions(documents)
    expected = drawn(row)
    for _ in range(random.randint(1, 4)):
        column = random.randint(0, row["input_ids"].shape[1])
        for name, values in row.items():
            fill = 0 if name == "attention_mask" else random.randint(0, 9)
            row[name] = torch.cat([values[:, :column], torch.tensor([[fill]]), values[:, column:]], -1)
    assert drawn(row) == expected


def rms(inputs):
    batch = Batch.from_inputs(inputs, key=3, pad_id=PAD)
    return make("neft_uniform").noise(torch.zeros(*batch.keys.shape, 512), batch).square().mean(-1).sqrt()


# What users saw: the noise was several times too strong, or stood on padding, or the batch was refused.


def test_positions_that_jump_upwards_are_inside_a_document():
    """Position-skipping (PoSE) training."""
    inputs = {"input_ids": torch.arange(5, 13)[None], "position_ids": torch.tensor([[0, 1, 2, 3, 60, 61, 62, 63]])}
    assert torch.equal(rms(inputs), rms({"input_ids": inputs["input_ids"]}))
    assert torch.equal(rms({**inputs, "attention_mask": torch.ones(1, 8)}), rms(inputs))


def test_a_prompt_padded_before_its_completion_is_one_document_with_it():
    mask = torch.tensor([[1, 1, 1, 0, 0, 1, 1]])
    inputs = {"input_ids": torch.arange(5, 12)[None], "attention_mask": mask}
    dense = {"input_ids": inputs["input_ids"][:, [0, 1, 2, 5, 6]]}
    for extra in ({}, {"position_ids": torch.arange(7)[None]}, {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}):
        assert torch.equal(rms({**inputs, **extra})[mask == 1], rms(dense)[0])
        assert not rms({**inputs, **extra})[mask == 0].any()


def test_padding_under_a_mask_of_ones_gets_nothing_but_an_end_that_is_not_graded_does():
    rows = padded(DOCUMENTS)
    rows["labels"] = torch.where(rows["attention_mask"] == 1, rows["input_ids"], -100)
    long = rows["attention_mask"].sum(-1) < rows["attention_mask"].shape[1] - 1
    ones = {**rows, "attention_mask": torch.ones_like(rows["input_ids"])}
    assert long.any() and torch.equal(rms(ones)[long], rms(rows)[long])
    ended = {"input_ids": torch.tensor([[5, 6, 7, PAD]]), "labels": torch.tensor([[5, 6, 7, -100]])}
    assert rms({**ended, "attention_mask": torch.ones(1, 4)})[0, -1] > 0


def test_a_long_tail_of_padding_under_ones_is_no_document():
    for last in (0, 1):  # positions of the padding: all 0, or counted
        tail = torch.arange(68) * last
        inputs = {
            **flat(DOCUMENTS),
            "attention_mask": numbers(DOCUMENTS) * 0 + 1,
            "position_ids": positions(DOCUMENTS),
        }
        inputs = with_tail(inputs, 68, attention_mask=1, position_ids=0)
        inputs["position_ids"][:, -68:] = tail
        assert not rms(inputs)[:, -68:].any()
        assert drawn(inputs) == drawn(padded(DOCUMENTS))


def test_padding_that_is_also_the_end_of_a_document_is_told_by_labels():
    documents = [[*document, PAD] for document in DOCUMENTS]
    inputs = {name: value for name, value in padded(documents).items() if name != "attention_mask"}
    assert drawn(inputs) == drawn(padded(documents))
    batch = Batch.from_inputs(inputs)
    assert batch.real.all(), "without a tokenizer nobody can tell"


@pytest.mark.parametrize("carrier", ["cu_seq_lens_q", "seq_idx", "attention_mask", "text_position_ids"])
def test_carriers_that_disagree_are_one_sentence(carrier):
    others = [[5, 6], [7, 8, 9], [10, 11, 12, 13], [5, 6]]
    value = {
        "cu_seq_lens_q": borders(others),
        "seq_idx": numbers(others, 0),
        "attention_mask": numbers(others),
        "text_position_ids": positions(others),
    }[carrier]
    inputs = {**flat(DOCUMENTS), "position_ids": positions(DOCUMENTS), carrier: value}
    with pytest.raises(
        NoiseError, match="must begin documents at the same tokens, got a difference at token 2 of row 0."
    ):
        Batch.from_inputs(inputs)


def test_a_mask_of_ones_says_nothing_and_three_carriers_are_compared():
    inputs = {**flat(DOCUMENTS), "attention_mask": torch.ones(1, 11), "position_ids": positions(DOCUMENTS)}
    assert drawn(inputs) == drawn(padded(DOCUMENTS))
    with pytest.raises(NoiseError, match="seq_idx"):
        Batch.from_inputs({**inputs, "seq_idx": numbers([[5] * 4, [5] * 7], 0)})


@pytest.mark.parametrize("name", ["segment_ids", "document_ids", "cu_seqlens_kv", "seq_lens", "packed_seq_params"])
def test_an_unknown_carrier_is_one_sentence(name):
    with pytest.raises(
        NoiseError, match=f"document boundaries must be given by attention_mask, .* got {name}, which noise cannot"
    ):
        Batch.from_inputs({**flat(DOCUMENTS), name: numbers(DOCUMENTS)})
    assert Batch.from_inputs({**flat(DOCUMENTS), name: None}).real.all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "position_ids",
            torch.zeros(2, 1, 11),
            r"position_ids must have one number per token, \(1, 11\), got \(2, 1, 11\)",
        ),
        ("position_ids", torch.zeros(1, 7), r"got \(1, 7\)"),
        ("seq_idx", torch.zeros(11), r"seq_idx must have one number per token, \(1, 11\), got \(11,\)"),
        ("cu_seq_lens_q", [0, 3], "cu_seq_lens_q must be a tensor, got list"),
    ],
)
def test_a_carrier_that_cannot_be_read_is_one_sentence(name, value, message):
    with pytest.raises(NoiseError, match=message):
        Batch.from_inputs({**flat(DOCUMENTS), name: value})


def test_padding_that_transformers_lets_look_at_everything_is_padding():
    inputs = padded([[5, 6, 7], [8, 9]], "left")
    visible = (inputs["attention_mask"][:, None] > 0) & torch.ones(3, 3).tril().bool()
    visible = visible | ~visible.any(-1, keepdim=True)
    assert drawn({**inputs, "attention_mask": visible[:, None]}) == drawn(inputs)
    everything = (inputs["attention_mask"][:, None] > 0).expand(2, 3, 3)  # in both directions
    assert drawn({**inputs, "attention_mask": everything}) == drawn(inputs)
