"""Sums, places and random keys over the documents of a batch, held against a loop over documents."""

import torch

from neft_zoo.noise.documents import places_in_documents, sum_by_document, token_keys

# Three documents in two rows, the second of them over the border of the rows, with padding inside.
DOCUMENT = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 2, 2, 2]])
FIRST = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]]).bool()
REAL = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]).bool()


def test_a_sum_is_that_of_the_document_at_each_of_its_positions():
    values = torch.arange(10).view(2, 5)
    sums = {number: int(values[number == DOCUMENT].sum()) for number in range(3)}
    expected = [[sums[number] for number in row] for row in DOCUMENT.tolist()]
    assert sum_by_document(values, DOCUMENT).tolist() == expected


def test_a_place_counts_the_real_positions_before_it():
    places = places_in_documents(REAL, DOCUMENT, FIRST)
    assert places.tolist() == [[0, 1, 2, 0, 1], [1, 2, 0, 0, 1]]


def test_keys_follow_the_documents_tokens_and_tell_twins_apart():
    ids = torch.tensor([[5, 6, 7], [5, 6, 7], [5, 6, 8]])
    real, document = torch.ones(3, 3).bool(), torch.arange(3)[:, None].expand(3, 3).contiguous()
    position = torch.arange(3).expand(3, 3)
    keys = token_keys(ids, real, document, position, 1)
    assert len(set(keys.flatten().tolist())) == 9
    alone = token_keys(ids[2:], real[2:], document[2:] - 2, position[2:], 1)
    assert torch.equal(keys[2:], alone), "where a document stands in the batch changes nothing"
    assert not (keys == token_keys(ids, real, document, position, 2)).any()
