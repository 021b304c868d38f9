"""Batch reads every layout that trainers produce."""

from dataclasses import fields, replace

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from test_randomness import MASK, splitmix64
from transformers.integrations.neftune import neftune_post_forward_hook
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from neft_zoo import make
from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.batch import PLACEHOLDERS, Batch, step_key
from neft_zoo.noise.scales import ByLength

DOCUMENTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [5, 6]]


def collate(documents=DOCUMENTS, **settings):
    return DataCollatorForLanguageModeling(pad_token_id=0, **settings)([{"input_ids": d} for d in documents])


def per_document(batch, values):
    """Return the values of the real positions, document by document."""
    numbers = [int(i) for i in batch.document[batch.real].unique()]
    return [values[batch.real & (batch.document == i)].tolist() for i in numbers]


def reads(batch, documents=DOCUMENTS):
    assert per_document(batch, batch.input_ids) == documents
    assert per_document(batch, batch.lengths) == [[len(d)] * len(d) for d in documents]
    assert per_document(batch, batch.position) == [list(range(len(d))) for d in documents]


@pytest.mark.parametrize("multiple", [None, 4, 16])
@pytest.mark.parametrize("padding_free", [False, True])
def test_reads_what_trl_collates(padding_free, multiple):
    inputs = collate(padding_free=padding_free, pad_to_multiple_of=multiple)
    batch = Batch.from_inputs(inputs)
    reads(batch)
    assert batch.real.sum() == sum(map(len, DOCUMENTS))


def test_reads_packed_rows():
    data = pack_dataset(Dataset.from_dict({"input_ids": DOCUMENTS * 8}), seq_length=8, strategy="bfd")
    rows = list(data)
    inputs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    documents = []
    for row in rows:
        ids = list(row["input_ids"])
        for length in row["seq_lengths"]:
            documents.append(ids[:length])
            ids = ids[length:]
    reads(Batch.from_inputs(inputs), documents)


def test_reads_borders_without_positions():
    ids = collate(padding_free=True)["input_ids"]
    reads(Batch.from_inputs({"input_ids": ids, "cu_seq_lens_q": torch.tensor([0, 3, 5, 9, 11])}))


def test_borders_may_repeat_the_end():
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "cu_seq_lens_q": torch.tensor([0, 2, 3, 3])}
    reads(Batch.from_inputs(inputs), [[5, 6], [7]])


def test_documents_of_one_token_at_the_end_of_a_packed_row_are_its_padding():
    for positions, real in (([0, 0], [True, False]), ([0, 1, 0], [True, True, False])):
        inputs = {"input_ids": torch.ones(1, len(positions)).long(), "position_ids": torch.tensor([positions])}
        assert Batch.from_inputs(inputs).real[0].tolist() == real


@pytest.mark.parametrize("pads", [0, 1])
def test_reads_left_padding_with_positions(pads):
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    ids = torch.arange(15).view(3, 5) * mask
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, pads)
    for given_positions in ({}, {"position_ids": positions}, {"position_ids": positions.expand(3, 3, 5)}):
        batch = Batch.from_inputs({"input_ids": ids, "attention_mask": mask, **given_positions})
        reads(batch, [[2, 3, 4], [5, 6, 7, 8, 9], [14]])


def test_reads_a_packed_row_by_three_planes_of_positions():
    time, height, width = [0, 1, 1, 0, 1, 2], [0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 1, 2]
    planes = torch.tensor([time, height, width])[:, None]
    reads(Batch.from_inputs({"input_ids": torch.arange(5, 11)[None], "position_ids": planes}), [[5, 6, 7], [8, 9, 10]])


def test_what_is_not_given_is_neutral():
    batch = Batch.from_inputs({"input_ids": torch.tensor([[5, 6]])})
    assert (batch.progress, batch.factor, batch.fill_id, batch.labels) == (0, 1, None, None)
    assert batch == batch and batch != replace(batch), "batches are compared by identity"


def test_placeholders_have_no_place_in_a_document_and_end_none():
    ids = torch.tensor([[9, 5, 9, 9, 6, 7], [5, 9, 6, 0, 0, 0]])
    batch = Batch.from_inputs({"input_ids": ids, "attention_mask": (ids != 0).long()}, media_ids=[9])
    reads(batch, [[5, 6, 7], [5, 6]])
    assert batch.real.tolist() == ((ids != 0) & (ids != 9)).tolist()


def test_a_stretch_of_positions_says_what_the_whole_says():
    ids = torch.arange(12).view(3, 4)
    batch = Batch.from_inputs({"input_ids": ids, "labels": ids}, key=3, progress=0.5, special_ids=[2], fill_id=1)
    part = batch.part(slice(3, 9))
    for field in fields(batch):
        one, whole = getattr(part, field.name), getattr(batch, field.name)
        if isinstance(whole, torch.Tensor):
            assert one.shape == (1, 6) and torch.equal(one[0], whole.flatten()[3:9]), field.name
        else:
            assert one == whole, field.name


def test_sums_and_maxima_are_those_of_a_documents_real_tokens():
    batch = Batch.from_inputs(collate(padding_free=False))
    values = torch.where(batch.real, torch.rand(batch.real.shape), 7.0)
    found = per_document(batch, values)
    assert per_document(batch, batch.document_max(values)) == [[max(d)] * len(d) for d in found]
    sums = per_document(batch, batch.document_sum(values))
    assert [d[0] for d in sums] == pytest.approx([sum(d) for d in found]) and all(len(set(d)) == 1 for d in sums)


def test_gather_reads_any_position_of_any_document():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
    batch = Batch.from_inputs({"input_ids": torch.arange(8).view(2, 4) * mask, "attention_mask": mask})
    ids, back = batch.input_ids, (batch.lengths - 1 - batch.position) * batch.real
    assert per_document(batch, batch.gather(ids, back, batch.document)) == [[3, 2, 1], [5, 4]]
    assert per_document(batch, batch.gather(ids, torch.zeros_like(ids), 1 - batch.document)) == [[4, 4, 4], [1, 1]]
    nothing = Batch.from_inputs({"input_ids": ids, "attention_mask": mask * 0})
    assert nothing.gather(ids, mask * 0, nothing.document).shape == ids.shape


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=6), min_size=1, max_size=6), st.booleans())
def test_lengths_are_what_a_loop_counts(documents, padding_free):
    reads(Batch.from_inputs(collate(documents, padding_free=padding_free)), documents)


def test_an_empty_row_has_no_real_position():
    batch = Batch.from_inputs(
        {"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.tensor([[0] * 3, [1] * 3])}
    )
    assert batch.real.tolist() == [[False] * 3, [True] * 3]
    assert make("neft_sphere").noise(torch.ones(2, 3, 4), batch).isfinite().all()


def test_graded_tokens_are_the_same_in_every_layout():
    examples = [{"input_ids": d, "labels": d[:1] + [-100] + d[2:]} for d in DOCUMENTS]
    for padding_free in (False, True):
        inputs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=padding_free)(examples)
        batch = Batch.from_inputs(inputs)
        assert per_document(batch, batch.graded) == [[False, False] + [True] * (len(d) - 2) for d in DOCUMENTS]
    assert Batch.from_inputs({"input_ids": torch.ones(1, 2).long()}).graded is None


def test_equal_documents_draw_different_noise():
    batch = Batch.from_inputs(collate([[1, 2, 3]] * 3))
    assert len(batch.keys.unique()) == 9
    noise = make("neft_uniform").noise(torch.zeros(3, 3, 8), batch)
    assert not torch.equal(noise[0], noise[1]) and not torch.equal(noise[1], noise[2])


def hashed(number, *counters):
    """SplitMix64's finalizer, and a further one of its sum with every counter times the golden ratio."""
    golden = 0x9E3779B97F4A7C15
    number = splitmix64(number - golden & MASK, 1)[0]
    for counter in counters:
        number = splitmix64(number + (counter - 1) * golden & MASK, 1)[0]
    return number


@pytest.mark.parametrize("padding_free", [False, True])
def test_keys_are_the_hash_that_the_versions_of_the_entries_stand_for(padding_free):
    """Another hash would be as good, but its numbers others: every entry's version would have to be raised."""
    documents, key, golden = [[5, 6, 7], [9], [9, 5], [9], [9], [5, 6, 7]], 12345, 0x9E3779B97F4A7C15
    batch = Batch.from_inputs(collate(documents, padding_free=padding_free), key=key)
    expected = []
    for number, document in enumerate(documents):
        fingerprint = sum(hashed(token * golden & MASK, i) for i, token in enumerate(document)) & MASK
        twin = documents[:number].count(document)
        expected.append([hashed(fingerprint ^ key, twin, i) for i in range(len(document))])
    assert [[each & MASK for each in keys] for keys in per_document(batch, batch.keys)] == expected


def test_steps_ranks_seeds_and_sites_draw_different_noise():
    keys = {step_key(seed, rank, step) for seed in range(3) for rank in range(3) for step in range(3)}
    assert len(keys) == 27
    batch = Batch.from_inputs(collate(), key=1)
    assert not torch.equal(batch.at(0).keys, batch.keys) and not torch.equal(batch.at(0).keys, batch.at(1).keys)
    assert torch.equal(batch.at(-1).keys, batch.keys)
    assert not torch.equal(batch.stream("what"), batch.stream("rounding"))


def test_a_split_into_micro_batches_changes_no_draw():
    whole = Batch.from_inputs(collate(DOCUMENTS[:3]), key=5)
    for row, document in enumerate(DOCUMENTS[:3]):
        alone = Batch.from_inputs(collate([document]), key=5)
        assert torch.equal(whole.keys[row][: len(document)], alone.keys[0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"labels": torch.ones(1, 2)}, r"needs input_ids.*\['labels'\]"),
        (
            {"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.ones(1, 1, 3, 3)},
            r"\(1, 2\), got \(1, 1, 3, 3\)",
        ),
        ({"input_ids": torch.ones(1, 2).long(), "attention_mask": {"full": 1}}, "got int"),
    ],
)
def test_unreadable_inputs_are_refused(inputs, message):
    with pytest.raises(NoiseError, match=message):
        Batch.from_inputs(inputs)


def test_special_tokens_are_marked():
    batch = Batch.from_inputs(collate(), special_ids=[6, 13])
    assert batch.input_ids[batch.special].tolist() == [6, 13, 6]


def test_equals_transformers_hook_at_equal_random_numbers():
    """Padded length and the hook's own draw: the same noise on every real position."""
    inputs = collate()
    embedding = torch.nn.Embedding(16, 24).train()
    embedding.neftune_noise_alpha = 5.0
    embeds = embedding(inputs["input_ids"]).detach()
    torch.manual_seed(3)
    theirs = neftune_post_forward_hook(embedding, None, embeds) - embeds
    torch.manual_seed(3)
    drawn = torch.zeros_like(embeds).uniform_(-1, 1)
    batch = Batch.from_inputs(inputs)
    ours = AdditiveNoise(lambda batch, width: drawn, ByLength(5.0, "padded"))(embeds, batch)
    assert (ours - theirs)[batch.real].abs().max() < 1e-6
    assert theirs[~batch.real].abs().max() > 0 and not ours[~batch.real].any()


IMAGE = 3
WITH_IMAGES = [[5, IMAGE, IMAGE, 6, IMAGE], [IMAGE, 8, 9], [10, 11], [IMAGE, 8, 9]]


@pytest.mark.parametrize("padding_free", [False, True])
def test_placeholders_are_a_site_of_their_own(padding_free):
    def seen(documents, padding_free):
        batch = Batch.from_inputs(collate(documents, padding_free=padding_free), key=4, media_ids=[IMAGE])
        return batch, batch.at(PLACEHOLDERS)

    batch, images = seen(WITH_IMAGES, padding_free)
    assert torch.equal(images.real, batch.input_ids == IMAGE) and not (images.real & batch.real).any()
    assert per_document(images, images.position) == [[0, 1, 2], [0], [0]]
    assert per_document(images, images.lengths) == [[3] * 3, [1], [1]]
    keys = per_document(images, images.keys)
    assert len({key for each in [*keys, batch.keys[batch.real].tolist()] for key in each}) == 5 + int(batch.real.sum())
    alone = [seen([document], False)[1] for document in WITH_IMAGES[:2]]
    assert keys[:2] == [each.keys[each.real].tolist() for each in alone]
    assert Batch.from_inputs(collate(DOCUMENTS)).at(PLACEHOLDERS).real.sum() == 0
