"""BatchReader: batches of a loss's inputs and of the model's calls."""

import torch

from neft_zoo.training.batch_reader import BatchReader

IDS = torch.arange(5, 29).view(4, 6)


def test_a_call_without_labels_has_those_of_the_step_where_they_fit(llama):
    read = BatchReader(llama())
    read.enter_step(7, 0.25, labels=IDS)
    batch = read.of_call({"input_ids": IDS})
    assert torch.equal(batch.labels, IDS) and (batch.key, batch.progress) == (7, 0.25)
    assert torch.equal(read.of_call({"input_ids": IDS, "labels": IDS + 1}).labels, IDS + 1)
    assert read.of_call({"input_ids": IDS[:, 1:]}).labels is None
    read.enter_step(8, 0.5)
    assert read.of_call({"input_ids": IDS}).labels is None


def test_a_call_is_read_as_the_inputs_of_a_loss_are(llama, tokenizer):
    read = BatchReader(llama(), tokenizer)
    read.enter_step(7, 0.25)
    one, other = read.of_call({"input_ids": IDS}), read({"input_ids": IDS}, 7, 0.25)
    assert torch.equal(one.keys, other.keys) and torch.equal(one.special, other.special)
