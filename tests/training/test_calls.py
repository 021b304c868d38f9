"""How a loss of one's own calls the model: several times, on other tokens, in a wrapper, in eval mode."""

import copy
import os
import pickle
import subprocess
import sys
import warnings

import loop_worker
import pytest
import torch
from peft import LoraConfig, get_peft_model
from selection import NEED_OTHER_MODELS, quick
from small_models import apart, fitting
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

import neft_zoo
from neft_zoo import NoiseError, attach, make
from neft_zoo.noise.batch import EMBEDDING

IDS = torch.arange(5, 57).view(2, 26)
OTHER = torch.arange(60, 74).view(2, 7)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}
NAMES = [name for name in neft_zoo.names() if name not in NEED_OTHER_MODELS]
NOISY = [name for name in NAMES if make(name).noise is not None or make(name).family == "adversarial"]
ONCE = [name for name in NOISY if make(name).objective.passes == 1]
SEVERAL = [name for name in NOISY if make(name).objective.passes > 1]
LOUD = {"name": "neft_uniform", "alpha": 50}


def attached(model, name, tokenizer=None):
    counts = torch.ones(model.config.vocab_size).long()
    return attach(model, fitting(name), total_steps=1, tokenizer=tokenizer, token_counts=counts)


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def contrastive(model, inputs):
    one = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=inputs["labels"])
    other = model(input_ids=OTHER, attention_mask=torch.ones_like(OTHER), labels=OTHER)
    return one.loss + other.loss


@pytest.mark.parametrize("name", ["neft_uniform", "neft_completion", "token_dropout", "hype", "neft_gaussian"])
def test_a_second_call_on_other_tokens_gets_noise_of_its_own(llama, tokenizer, name):
    model = llama(num_hidden_layers=2).train()
    handle, seen = attached(model, name, tokenizer), []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0].detach()), with_kwargs=True
    )
    handle.loss(BATCH, compute=contrastive).backward()
    together = seen[:]
    seen.clear()
    for ids in (IDS, OTHER):
        handle.loss({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}, step=0)
    assert len(together) == 2 and all(torch.equal(one, other) for one, other in zip(together, seen, strict=True))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_passes_want_one_batch_and_say_so(llama, tokenizer, name):
    model = llama(attention_dropout=0.1).train()
    with pytest.raises(NoiseError, match=rf"once a pass with {name}, .* shapes \(2, 26\) and \(2, 7\): take"):
        attached(model, name, tokenizer).loss(BATCH, compute=contrastive)


def twice(model, inputs):
    return model(**inputs).loss + model(**inputs).logits.float().square().mean()


@pytest.mark.parametrize("name", ["symnoise", "pgd", "freelb", "fgm", "lat"])
def test_a_batch_that_is_run_twice_has_one_perturbation(llama, name):
    model = llama().train()
    handle = attach(
        model, {**fitting(name), "steps": 3} if name in ("pgd", "freelb") else fitting(name), total_steps=1
    )
    step = handle.session.step(BATCH, lambda inputs: twice(model, inputs), key=1)
    loss = handle.session.run(step)
    loss.backward()
    got = gradients(model)
    model.zero_grad()

    def once(model, inputs):
        outputs = model(**inputs)
        return outputs.loss + outputs.logits.float().square().mean()

    expected = handle.session.loss(BATCH, lambda inputs: once(model, inputs), key=1)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6) and apart(got, gradients(model)) < 1e-5


def test_labels_that_are_shifted_outside(llama, tokenizer):
    def shifted(model, inputs):
        logits = model(inputs["input_ids"][:, :-1], attention_mask=inputs["attention_mask"][:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"][:, 1:].flatten())

    model = llama().train()
    clean = shifted(model, BATCH)
    for name in ("neft_uniform", "symnoise", "pgd"):
        assert attached(model, name, tokenizer).loss(BATCH, compute=shifted) != clean
    for name in ("r3f", "neft_completion"):
        with pytest.raises(NoiseError, match="labels"):
            attached(model, name, tokenizer).loss(BATCH, compute=shifted)
    with pytest.raises(NoiseError, match=r"got none in the call .* shape \(2, 25\) that .* of the batch's \(2, 26\)"):
        attached(model, "r3f", tokenizer).loss(BATCH, compute=shifted)


def test_tokens_that_are_embedded_apart_are_named_with_both_shapes(llama):
    model = llama().train()
    handle = attach(model, "neft_uniform", total_steps=1)

    def embedded(model, ids):
        return model.model(inputs_embeds=model.get_input_embeddings()(ids)).last_hidden_state.square().mean()

    shapes = r"must call LlamaForCausalLM with token ids of the batch's shape \(2, 26\), .* got \(2, 25\)\.$"
    with pytest.raises(NoiseError, match=shapes):
        handle.loss(BATCH, compute=lambda m, inputs: embedded(m, IDS[:, :-1]))
    assert handle.loss(BATCH, compute=lambda m, inputs: embedded(m, IDS)) != embedded(model, IDS)
    for ids in (IDS, IDS[:, :-1]):  # of a backbone's call the batch is read
        clean = model.model(ids).last_hidden_state.square().mean()
        assert handle.loss(BATCH, compute=lambda m, inputs: m.model(ids).last_hidden_state.square().mean()) != clean  # noqa: B023


def test_an_embedding_that_was_replaced_is_named(llama):
    model = llama().train()
    handle = attach(model, "neft_uniform", total_steps=1)
    model.set_input_embeddings(torch.nn.Embedding(model.config.vocab_size, 32))
    with pytest.raises(NoiseError, match="the token embedding of LlamaForCausalLM must stay as it was"):
        handle.loss(BATCH)


def test_eval_mode_is_said_once_and_only_where_training_was_meant(llama):
    def said(run):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        return [str(each.message) for each in caught if "eval mode" in str(each.message)]

    model = llama().eval()
    handle = attach(model, LOUD, total_steps=1)
    (message,) = said(lambda: [handle.loss(BATCH), handle.loss(BATCH)])
    assert "LlamaForCausalLM is in eval mode" in message and "call .train()" in message
    with torch.no_grad():
        assert not said(lambda: attach(llama().eval(), LOUD, total_steps=1).loss(BATCH))
    assert not said(lambda: attach(llama().eval(), "none", total_steps=1).loss(BATCH))
    trained = attach(llama().train(), LOUD, total_steps=2)
    trained.loss(BATCH)
    trained.model.eval()
    assert not said(lambda: trained.loss(BATCH)), "an evaluation between steps"
    (message,) = said(lambda: [trained.loss(BATCH).backward() for _ in range(2)])
    assert "is trained in eval mode, as an evaluation leaves it, where neft_uniform adds nothing" in message


def copies(model):
    return copy.deepcopy(model), pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("name", ["neft_uniform", "symnoise", "hype", "r3f"])
def test_a_copy_made_inside_of_a_pass_is_clean(llama, name):
    model, made = llama().train(), []
    clean = model(**BATCH).loss

    def copying(model, inputs):
        made.extend(copies(model))
        return model(**inputs).loss

    handle = attached(model, name)
    assert handle.loss(BATCH, compute=copying) != clean
    for twin in made:
        assert torch.equal(twin(**BATCH).loss, clean)
        assert torch.equal(
            attach(twin, LOUD, total_steps=1).loss(BATCH), attach(llama().train(), LOUD, total_steps=1).loss(BATCH)
        )


@pytest.fixture
def processes():
    """Return what starts torch's process group: one process over gloo, or several that are not there."""

    def start(count, tmp_path=None):
        if count == 1:
            store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        else:
            torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)

    yield start
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["neft_uniform", "symnoise", "r3f", "pgd", "freelb", "hype"])
@pytest.mark.parametrize("peft", [False, True])
def test_a_wrapper_is_computed_through(llama, processes, tmp_path, name, peft):
    def build():
        model = llama().train()
        adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        return get_peft_model(model, adapter) if peft else model

    torch.manual_seed(0)
    bare = build()
    attach(bare, fitting(name), total_steps=1).loss(BATCH).backward()
    processes(1, tmp_path)
    torch.manual_seed(0)
    model = build()
    model.load_state_dict(bare.state_dict())
    wrapper = DistributedDataParallel(model)
    calls = []
    wrapper.register_forward_pre_hook(lambda *_: calls.append(1))
    handle = attach(wrapper, fitting(name), total_steps=1)
    handle.loss(BATCH).backward()
    assert len(calls) == make(fitting(name)).objective.passes
    assert apart(gradients(model), gradients(bare)) < 1e-6
    handle.detach()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_bare_model_in_several_processes_is_refused(llama, processes):
    processes(2)
    with pytest.raises(NoiseError, match="must be wrapped before attach in 2 processes, got a bare LlamaForCausalLM"):
        attach(llama(), "neft_uniform", total_steps=1)
    model = llama()
    handle = attach(DistributedDataParallel(model), "neft_uniform", total_steps=1)
    assert handle.session.bare_model is model


COMPILED_BY = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "compile": lambda model: model.compile(backend="eager") or model,
    "forward": lambda model: setattr(model, "forward", torch.compile(model.forward, backend="eager")) or model,
}


@pytest.mark.parametrize(
    ("how", "name"),
    quick(
        [(how, name) for how in COMPILED_BY for name in ("neft_uniform", "symnoise", "hype", "embed_mix")],
        ("torch.compile", "neft_uniform"),
    ),
)
def test_a_model_that_was_compiled_and_called_before_has_the_noise_of_an_eager_one(llama, how, name):
    model = llama().train()
    compiled = COMPILED_BY[how](model)
    clean = compiled(**BATCH).loss
    handle = attach(compiled, name, total_steps=1)
    noisy = handle.loss(BATCH)
    torch.testing.assert_close(noisy, attach(llama().train(), name, total_steps=1).loss(BATCH))
    assert noisy != clean and handle.session.bare_model is model


@pytest.mark.parametrize("name", ["neft_uniform", "hype", "symnoise", "r3f"])
def test_a_functional_gradient_is_that_of_backward(llama, name):
    model = llama().train()
    handle = attach(model, name, total_steps=1)

    def loss(weights):
        return handle.loss(
            BATCH, step=0, compute=lambda model, inputs: functional_call(model, weights, kwargs=inputs).loss
        )

    functional = torch.func.grad(loss)({name: weight.detach() for name, weight in model.named_parameters()})
    handle.loss(BATCH, step=0).backward()
    assert apart(functional, gradients(model)) < 1e-6


def test_the_batch_is_known_by_its_token_ids(llama):
    """Other tokens of the same shape are another batch, with noise of its own."""
    model = llama().train()
    handle = attach(model, LOUD, total_steps=1)
    losses = [
        handle.session.step(inputs, lambda given: model(input_ids=given["other"], labels=given["other"]).loss, key=1)
        for inputs in ({**BATCH, "other": IDS + 1}, {**BATCH, "input_ids": IDS + 1, "other": IDS + 1})
    ]
    for step in losses:
        handle.session.run(step)
    one, other = (step.passes[0].deltas[EMBEDDING] for step in losses)
    assert torch.equal(one, other)


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_their_own_noise(tmp_path):
    names = ["neft_uniform", "symnoise", "r3f", "freelb", "pgd"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, loop_worker.__file__, str(tmp_path), *names], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in names:
        alone = [loop_worker.step(loop_worker.build(), name, rank) for rank in (0, 1)]
        mean = {key: (alone[0][key] + alone[1][key]) / 2 for key in alone[0]}
        assert apart(alone[0], alone[1]) > 1e-3
        assert apart(ranks[0][name], ranks[1][name]) == 0 and apart(ranks[0][name], mean) < 1e-6, name
    assert all("must be wrapped before attach in 2 processes" in rank["refused"] for rank in ranks)
