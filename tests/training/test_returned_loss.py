"""The loss that is returned, differentiated, is the gradient of the step, whatever a host does with it."""

import pytest
import torch
import trl
from selection import NEED_OTHER_MODELS, one_of_each_kind, quick
from small_models import apart, fitting

import neft_zoo
from neft_zoo import NoiseError, SFTTrainer, make
from neft_zoo.passes.accumulation import KeptGraphs, StoredGradients
from neft_zoo.training import strategy_loss
from neft_zoo.training.session import NoiseSession

NAMES = [name for name in neft_zoo.names() if not make(name).clean and name not in NEED_OTHER_MODELS]
SEVERAL = [name for name in NAMES if make(name).objective.passes > 1]
# Losses of all passes at once.
JOINT = {"r_drop", "r3f", "pdr", "noisefit", "lnsr", "hidden_cut", "cutoff_feature", "cutoff_span", "cutoff_token"}


@pytest.fixture(scope="module")
def shared(tokenizer, records, tmp_path_factory):
    """Return a trainer and a batch, for strategies to take turns on."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), attention_dropout=0.1, **sizes))
    args = neft_zoo.NoiseSFTConfig(
        output_dir=str(tmp_path_factory.mktemp("out")), report_to="none", use_cpu=True, bf16=False, max_steps=4
    )
    trainer = SFTTrainer(model, args=args, train_dataset=records.select(range(8)), processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 1
    return trainer, next(iter(trainer.get_train_dataloader()))


@pytest.fixture
def on(shared):
    """Return what puts a strategy on the shared trainer, and its batch."""
    trainer, inputs = shared

    def put(name):
        trainer.session.detach()
        trainer.strategy = make(fitting(name))
        counts = torch.ones(trainer.model.config.vocab_size).long()
        settings = dict(tokenizer=trainer.processing_class, token_counts=counts)
        trainer.session = NoiseSession(trainer.model, trainer.strategy, **settings)
        trainer.model.train()
        trainer.model.zero_grad()
        return trainer, inputs

    yield put
    trainer.session.detach()


def gradients(trainer, inputs, use):
    """Return the gradients that a use of the returned loss leaves behind, and the loss."""
    trainer.model.zero_grad()
    torch.manual_seed(1)  # of dropout
    loss = trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=torch.tensor(40))
    assert all(weight.grad is None for weight in trainer.model.parameters()), "compute_loss took a backward pass"
    use(loss)
    return {n: w.grad.clone() for n, w in trainer.model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("name", quick(NAMES, *one_of_each_kind(NAMES)))
def test_a_factor_another_loss_and_a_skipped_batch(on, name):
    trainer, inputs = on(name)
    whole = gradients(trainer, inputs, lambda loss: loss.backward())
    tenth = gradients(trainer, inputs, lambda loss: (0.1 * loss).backward())
    assert apart({n: 0.1 * g for n, g in whole.items()}, tenth) < 1e-6 * max(g.abs().max() for g in whole.values())
    penalty = {n: 2e-3 * w.detach() for n, w in trainer.model.named_parameters()}

    def with_penalty(loss):
        (loss + 1e-3 * sum(weight.square().sum() for weight in trainer.model.parameters())).backward()

    both = gradients(trainer, inputs, with_penalty)
    assert apart({n: whole.get(n, 0) + g for n, g in penalty.items()}, both) < 1e-5
    assert gradients(trainer, inputs, lambda loss: None) == {}


@pytest.mark.parametrize("name", SEVERAL)
def test_stored_gradients_are_those_of_the_kept_graphs(on, name, monkeypatch):
    trainer, inputs = on(name)
    stored = gradients(trainer, inputs, lambda loss: loss.backward())
    monkeypatch.setattr(strategy_loss, "accumulation_of", lambda *_: KeptGraphs())
    kept = gradients(trainer, inputs, lambda loss: loss.backward())
    assert stored.keys() == kept.keys() and apart(stored, kept) < 1e-6


@pytest.mark.parametrize("name", quick(SEVERAL, "symnoise", "freelb", "r3f", "sam"))
def test_a_hook_on_a_parameter_acts_once(on, name):
    """On the whole gradient, as in a plain step, and not on the direction of an ascent."""
    trainer, inputs = on(name)
    whole = gradients(trainer, inputs, lambda loss: loss.backward())
    hooked = "model.norm.weight"
    handle = trainer.model.get_parameter(hooked).register_hook(lambda grad: 3 * grad)
    try:
        found = gradients(trainer, inputs, lambda loss: loss.backward())
    finally:
        handle.remove()
    assert apart(found, whole | {hooked: 3 * whole[hooked]}) < 1e-5


def test_a_second_derivative_of_what_was_stored_is_refused():
    """A penalty on the gradient would miss the passes whose graphs are gone."""
    for accumulation in (KeptGraphs(), StoredGradients()):
        weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        loss, _ = accumulation.part((weight**3).sum(), ())
        assert torch.autograd.grad(loss, weight, retain_graph=True)[0].tolist() == [3.0, 12.0]
        if isinstance(accumulation, StoredGradients):
            with pytest.raises(NoiseError, match="must be differentiated once, got create_graph=True"):
                torch.autograd.grad(loss, weight, create_graph=True)
        else:
            torch.autograd.grad(loss, weight, create_graph=True)[0].sum().backward()
            assert weight.grad.tolist() == [6.0, 12.0]


@pytest.mark.parametrize("name", quick(SEVERAL, "symnoise", "freelb", "r3f", "sam"))
def test_reentrant_checkpoints_that_are_set_later_are_named(on, name, monkeypatch):
    """By the model's own code, where no flag shows them; a loss of one backward pass is right with them."""
    trainer, inputs = on(name)
    torch.manual_seed(0)
    whole = gradients(trainer, inputs, lambda loss: loss.backward())
    layer = trainer.model.model.layers[1]
    own = layer.forward

    def checkpointed(states, **kwargs):
        kwargs |= {"past_key_values": None, "use_cache": False}
        return torch.utils.checkpoint.checkpoint(lambda x: own(x, **kwargs), states, use_reentrant=True)

    monkeypatch.setitem(vars(layer), "forward", checkpointed)
    torch.manual_seed(0)
    try:
        found = gradients(trainer, inputs, lambda loss: loss.backward())
    except NoiseError as error:
        assert "use_reentrant must be false" in str(error)
    else:
        assert apart(found, whole) < 1e-6 and name in JOINT


@pytest.mark.parametrize("name", ["symnoise", "freelb", "fgm"])
def test_a_parameter_of_the_loss_itself_gets_its_gradient_of_every_pass(llama, config, records, tokenizer, name):
    class WithTemperature(trl.SFTTrainer):
        temperature = torch.nn.Parameter(torch.tensor(0.5))

        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * self.temperature

    class Ours(neft_zoo.NoiseMixin, WithTemperature):
        pass

    trainer = Ours(llama(), args=config(), train_dataset=records, processing_class=tokenizer, noise=fitting(name))
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    WithTemperature.temperature.grad = None
    loss.backward()
    assert WithTemperature.temperature.grad.item() == pytest.approx(loss.item() / 0.5, rel=1e-5)
