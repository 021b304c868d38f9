"""attach(): loops of one's own."""

import warnings

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from small_models import apart, same, weights
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from neft_zoo import NoiseError, attach

IDS = torch.arange(5, 29).view(4, 6)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}


def loop(model, noise, steps=4, accumulate=1, optimizer=None, backward=torch.Tensor.backward):
    """Train for some steps, each batch in `accumulate` parts."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.5)
    handle = attach(model, noise, total_steps=steps)
    model.train()
    for step in range(steps):
        for part in range(accumulate):
            rows = slice(part * 4 // accumulate, (part + 1) * 4 // accumulate)
            loss = handle.loss({name: value[rows] for name, value in BATCH.items()}, step=step)
            backward(loss / accumulate)
        optimizer.step()
        optimizer.zero_grad()
    handle.detach()
    return weights(model)


@pytest.mark.cell("Trainers", "attach() in plain torch")
@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise", "neft_completion"])
def test_plain_torch_loop(llama, noise):
    whole = loop(llama(), noise)
    assert not same(whole, loop(llama(), "none"))
    assert apart(whole, loop(llama(), noise, accumulate=4)) < 1e-5


@pytest.mark.cell("Trainers", "attach() under accelerate")
def test_accelerate_loop_equals_plain_torch(llama):
    AcceleratorState._reset_state(True)  # one of an earlier test in this process may compute in bf16
    accelerator = Accelerator(cpu=True)
    model = llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    got = loop(prepared, "neft_uniform", optimizer=optimizer, backward=accelerator.backward)
    assert same(got, loop(llama(), "neft_uniform"))


def test_lora(llama):
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    before = weights(model)
    assert not same(loop(model, "neft_uniform"), before)


def test_steps_are_counted_or_given(llama):
    model = llama().train()
    with attach(
        model, {"name": "neft_scheduled", "alpha": {"schedule": "linear", "start": 8, "end": 0}}, total_steps=4
    ) as h:
        first, second = h.loss(BATCH).item(), h.loss(BATCH).item()
        assert h.measured["alpha"] == 6 and h.step == 2
        assert [h.loss(BATCH, step=i).item() for i in (0, 1)] == [first, second] and first != second
        assert h.measured["rms"] == pytest.approx(6 / (3 * 6 * 32) ** 0.5, rel=0.05)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.cell("The clean model", "evaluation, attach()")
def test_evaluation_is_clean(llama):
    model = llama()
    clean = model.eval()(**BATCH).loss
    handle = attach(model, {"name": "neft_uniform", "alpha": 50}, total_steps=1)
    assert torch.equal(handle.loss(BATCH), clean)
    model.train()
    with torch.no_grad():
        assert torch.equal(handle.loss(BATCH), clean)
    assert not torch.equal(handle.loss(BATCH), clean)
    assert torch.equal(model(**BATCH).loss, clean)


@pytest.mark.cell("Faults", "attach() twice on one model")
def test_attached_twice_only_the_one_in_use_adds(llama):
    model = llama().train()
    attach(model, {"name": "neft_uniform", "alpha": 50}, total_steps=1)
    second = attach(model, "neft_uniform", total_steps=1).loss(BATCH)
    assert torch.equal(second, attach(llama().train(), "neft_uniform", total_steps=1).loss(BATCH))


def test_a_loss_of_ones_own(llama):
    def squared(model, inputs):
        return model(inputs["input_ids"]).logits.square().mean()

    model = llama().train()
    handle = attach(model, "neft_uniform", total_steps=1)
    assert handle.loss(BATCH, compute=squared) != squared(model, BATCH)


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "the same noise on every rank")
def test_ranks_and_seeds_draw_differently(llama):
    model = llama().train()
    losses = {
        attach(model, "neft_uniform", total_steps=1, seed=s, rank=r).loss(BATCH).item() for s in (0, 1) for r in (0, 1)
    }
    assert len(losses) == 4


@pytest.mark.parametrize(
    ("noise", "steps", "message"),
    [
        ("nope", 1, "must name a strategy .*, got 'nope'"),
        ("neft_uniform", 0, "total_steps must be a finite number >= 1, got 0"),
        (3, 1, "got 3"),
    ],
)
def test_bad_input(llama, noise, steps, message):
    with pytest.raises(NoiseError, match=message):
        attach(llama(), noise, total_steps=steps)


def test_models_and_batches_that_cannot_work(llama):
    with pytest.raises(NoiseError, match="token embedding .* got Linear"):
        attach(torch.nn.Linear(2, 2), "neft_uniform", total_steps=1)
    handle = attach(llama().train(), "neft_prompt", total_steps=1)
    with pytest.raises(NoiseError, match="'prompt' tokens needs labels"):
        handle.loss({"input_ids": IDS})


@pytest.mark.parametrize("step", [-1, 0.5, "0", float("nan")])
def test_a_step_is_a_whole_number(llama, step):
    handle = attach(llama().train(), "neft_uniform", total_steps=4)
    for call in (lambda: handle.loss(BATCH, step=step), lambda: handle.perturbed(step)):
        with pytest.raises(NoiseError, match="step must be a whole number >= 0, got"):
            call()
    for name in ("seed", "rank"):
        with pytest.raises(NoiseError, match=f"{name} must be a whole number, got None"):
            attach(llama(), "neft_uniform", total_steps=4, **{name: None})
    assert torch.equal(handle.loss(BATCH, step=torch.tensor(3)), handle.loss(BATCH, step=3))


def test_a_schedule_that_is_over_is_said_once(llama):
    schedule = {"name": "neft_scheduled", "alpha": {"schedule": "linear", "start": 0.2, "end": 0.1}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for noise in (schedule, {"name": "neft_uniform", "alpha": 0.1}):
            handle = attach(llama().train(), noise, total_steps=2)
            [handle.loss(BATCH) for _ in range(4)]
    assert ["step 2 is after the last one of total_steps=2" in str(each.message) for each in caught] == [True]


@pytest.mark.parametrize("step", [None, 0])
def test_a_loss_that_is_computed_again_in_backward_draws_the_same(llama, step):
    model, plain = llama().train(), llama().train()
    handle = attach(model, "neft_uniform", total_steps=2)
    scale = torch.ones((), requires_grad=True)
    loss = checkpoint(lambda by: by * handle.loss(BATCH, step=step), scale, use_reentrant=False)
    if step is None:
        with pytest.raises(NoiseError, match="step must be given where a loss is computed again"):
            loss.backward()
        return
    loss.backward()
    attach(plain, "neft_uniform", total_steps=2).loss(BATCH, step=0).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("name", ["r3f", "pdr", "lnsr"])
@pytest.mark.parametrize("own", ["the model's", "one that divides", "one that does not"])
def test_a_regularizer_keeps_its_weight_under_accumulation(llama, name, own):
    """With the step's token count in the batches, which the loss divides by or not."""
    labels = IDS.clone()
    labels[0, 3:], labels[1, 5:], labels[2, :6] = -100, -100, -100
    count = int((labels[:, 1:] != -100).sum())

    def divides(model, batch):
        total = batch.pop("num_items_in_batch")
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        return cross_entropy(logits, batch["labels"][:, 1:].flatten(), reduction="sum", ignore_index=-100) / total

    def ignores(model, batch):
        return model(**{name: value for name, value in batch.items() if name != "num_items_in_batch"}).loss

    compute = {"the model's": {}, "one that divides": {"compute": divides}}.get(own, {"compute": ignores})

    def added(size):
        torch.manual_seed(0)
        losses = []
        strength = {"size" if name == "lnsr" else "eps": 0.5}
        for noise in ("none", {"name": name, **strength}):
            with attach(llama(attention_dropout=0.0).train(), noise, total_steps=1) as handle:
                rows = [slice(first, first + size) for first in range(0, len(IDS), size)]
                batches = [dict(input_ids=IDS[part], labels=labels[part], num_items_in_batch=count) for part in rows]
                graded = [batch for batch in batches if (batch["labels"] != -100).any()]
                mean = 1 if compute.get("compute") is not ignores else len(graded)
                losses.append(sum(handle.loss(batch, step=0, **compute).item() / mean for batch in graded))
        return losses[1] - losses[0]

    whole = added(len(IDS))
    assert whole > 0
    if own != "one that does not":
        assert added(1) == pytest.approx(whole, rel=1e-3, abs=1e-7)


def test_ones_own_embeddings_stay_clean_after_a_pass(llama):
    """A later call with the same tensor is none of the backward pass, which alone computes a layer again."""
    model = llama()
    embeds = model.get_input_embeddings()(IDS).detach().requires_grad_()
    clean = model(inputs_embeds=embeds, labels=IDS).loss

    def compute(model, batch):
        return model(inputs_embeds=embeds, labels=batch["labels"]).loss

    with attach(model, {"name": "hype", "size": 1.0}, total_steps=1) as handle:
        assert handle.loss(BATCH, step=0, compute=compute) != clean
        assert model(inputs_embeds=embeds, labels=IDS).loss == clean
