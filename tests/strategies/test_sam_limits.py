"""sam where a batch does not use every weight, in fp16, and where rounding takes its step."""

import numpy as np
import pytest
import torch
from small_models import BATCH, gradients, same, weights

from neft_zoo import NoiseError, attach
from neft_zoo.passes.accumulation import StoredGradients


def test_sam_leaves_out_weights_that_a_batch_does_not_use(llama):
    """A vision tower, for a batch without images."""
    found = []
    for unused in (False, True):
        model = llama().double().train()
        if unused:
            model.tower = torch.nn.Linear(3, 3).double()
        attach(model, "sam", total_steps=1).loss(BATCH).backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_sam_scales_both_passes_where_the_trainer_scales_its_loss(llama):
    """The second pass is the one that trains: in fp16 its small gradients would be 0."""
    model, calls = llama().train(), []

    def gradient(value, inputs, **how):
        calls.append(len(inputs))
        return torch.autograd.grad(value, inputs, **how)

    session = attach(model, "sam", total_steps=1).session
    step = session.step(BATCH, lambda given: model(**given).loss, key=1, accumulation=StoredGradients(gradient))
    session.run(step)
    assert calls == [len(list(model.parameters()))] * 2


def test_sam_leaves_a_step_that_overflows_to_the_loss_scaler(llama):
    """Training in fp16 begins with a scale that is too large: a plain step is skipped, and the next one is smaller."""
    model = llama().train()
    session, before = attach(model, "sam", total_steps=2).session, weights(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def gradient(value, inputs, **how):
        scale = scaler.get_scale()
        return tuple(each / scale for each in torch.autograd.grad(value * scale, inputs, **how))

    def train():
        accumulation = StoredGradients(gradient)
        step = session.step(BATCH, lambda given: model(**given).loss, key=1, accumulation=accumulation)
        scaler.scale(session.run(step)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    train()
    assert same(weights(model), before) and scaler.get_scale() < 2.0**127
    while same(weights(model), before):
        train()
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_sam_refuses_weights_whose_rounding_takes_its_step(llama):
    """0.05 over all weights of a model is less for each than half of the distance of two numbers in bf16."""
    model = llama(hidden_size=64, initializer_range=1.0).train()
    attach(model, {"name": "sam", "rho": 0.01}, total_steps=1).loss(BATCH)
    model, before = model.to(torch.bfloat16), weights(model.to(torch.bfloat16))
    attach(model, {"name": "sam", "rho": 1e3}, total_steps=1).loss(BATCH)
    with pytest.raises(NoiseError, match=r"must not be lost to rounding, got weights of 16 bits that keep \d+% of it"):
        attach(model, {"name": "sam", "rho": 0.01}, total_steps=1).loss(BATCH)
    assert same(weights(model), before)
