"""EAFT and GEM as a config's token loss, held against loops over documents in float64."""

import copy
import math

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import MixtralConfig, MixtralForCausalLM, TrainerCallback
from trl import SFTTrainer as TRLSFTTrainer

from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer, enable
from neft_zoo.config import recipe
from neft_zoo.training.token_losses import TOKEN_LOSSES, eaft, gem

PROMPT = 3  # tokens of each document that are not graded
DOCUMENTS = [list(range(5, 16)), list(range(40, 60)), list(range(20, 27))]


def eaft_of(logits, label):
    """Return the loss of a token: the formula that 2601.02151 publishes, over the 20 likeliest tokens."""
    p = logits.softmax(-1)
    top = p.sort(descending=True).values[:20]
    top = (top / top.sum()).detach()
    return sum(-q * q.log() for q in top) / math.log(20) * -p[label].log()


def gem_of(logits, label):
    """Return the loss of a token: the sum over the vocabulary in the published code of 2408.16673, h linear."""
    p, q = logits.softmax(-1), (logits.detach() / 0.7).softmax(-1)
    return sum(q[i] * (p[i].log() - p[label].log()) for i in range(len(p)))


class BeforeOptimizer(TrainerCallback):
    """Keeps the gradients of the last step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}


def by_hand(model, of):
    """Return loss and gradients of the documents one by one in float64, averaged over all graded tokens."""
    twin = copy.deepcopy(model).double()
    losses = []
    for ids in DOCUMENTS:
        logits = twin(input_ids=torch.tensor([ids])).logits[0]
        losses += [of(logits[i - 1], ids[i]) for i in range(PROMPT, len(ids))]
    loss = sum(losses) / len(losses)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in twin.named_parameters()}


def trainer_of(model, config, tokenizer, token_loss, noise=None, **settings):
    rows = [{"input_ids": ids, "completion_mask": [int(i >= PROMPT) for i in range(len(ids))]} for ids in DOCUMENTS]
    args = config(token_loss=token_loss, completion_only_loss=True, max_length=None, **settings)
    data = Dataset.from_list(rows)
    return SFTTrainer(model, args=args, train_dataset=data, processing_class=tokenizer, noise=noise)


@pytest.mark.parametrize("rows", [3, 1], ids=["one batch", "accumulated"])
@pytest.mark.parametrize(("name", "of"), [("eaft", eaft_of), ("gem", gem_of)])
def test_loss_and_gradients_are_those_of_the_formula(llama, config, tokenizer, monkeypatch, name, of, rows):
    monkeypatch.setattr("neft_zoo.training.mixin.check_vocabulary", lambda *given: None)
    settings = dict(per_device_train_batch_size=rows, gradient_accumulation_steps=3 // rows, max_steps=1)
    model = llama(vocab_size=64)
    loss, gradients = by_hand(model, of)  # before the trainer changes the model's forward pass
    trainer = trainer_of(model, config, tokenizer, name, max_grad_norm=1e9, logging_steps=1, **settings)
    trainer.add_callback(before := BeforeOptimizer())
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert before.gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(before.gradients[key].double(), gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_noise_reaches_the_loss_of_tokens(llama, config, tokenizer, monkeypatch, recwarn, name):
    monkeypatch.setattr("neft_zoo.training.mixin.check_vocabulary", lambda *given: None)
    losses = {}
    for noise in ("none", {"name": "neft_uniform", "alpha": 20.0}, "symnoise"):
        trainer = trainer_of(llama(vocab_size=64), config, tokenizer, name, noise=noise, max_steps=2, logging_steps=1)
        trainer.train()
        losses[str(noise)] = trainer.state.log_history[0]["loss"]
    assert len(set(losses.values())) == 3
    assert not [each for each in recwarn if "compute_loss_func" in str(each.message)]


def test_a_token_that_the_model_is_sure_of_weighs_little():
    sure, unsure = torch.zeros(1, 2, 50), torch.zeros(1, 2, 50)
    sure[..., 7] = 30.0
    labels = torch.tensor([[1, 3]])

    class Outputs:
        def __init__(self, logits):
            self.logits = logits

    assert eaft(Outputs(sure), labels) < 1e-4 and eaft(Outputs(unsure), labels) == pytest.approx(math.log(50))
    nothing = torch.full((1, 2), -100)
    assert eaft(Outputs(sure), nothing) == gem(Outputs(sure), nothing) == 0
    none = torch.tensor(0)  # of all micro-batches of a step
    assert eaft(Outputs(sure), nothing, none) == gem(Outputs(sure), nothing, none) == 0
    assert gem(Outputs(unsure), labels, num_items_in_batch=4) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_every_token_loss_is_a_control(name):
    assert yaml.safe_load((recipe.folder() / "controls" / f"{name}.yaml").read_text())["token_loss"] == name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(token_loss="eatf"), "token_loss must be eaft or gem, got 'eatf'; did you mean eaft?"),
        (dict(token_loss="gem", loss_type="dft"), "token_loss must be the only loss, got 'gem' and loss_type 'dft'."),
        (dict(token_loss="gem", label_smoothing_factor=0.1), "got 'gem' and label_smoothing_factor 0.1."),
    ],
)
def test_another_loss_beside_it_is_refused(tmp_path, settings, message):
    with pytest.raises(NoiseError) as caught:
        NoiseSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)
    assert message in str(caught.value)


def test_a_trainer_that_would_ignore_it_is_refused(llama, config, records, tokenizer):
    known = dict(args=config(token_loss="gem"), train_dataset=records, processing_class=tokenizer)
    with pytest.raises(NoiseError, match="token_loss needs neft_zoo.SFTTrainer without a loss of its own, got 'gem'"):
        enable(TRLSFTTrainer(llama(), **known), "neft_uniform")
    with pytest.raises(NoiseError, match="token_loss needs neft_zoo.SFTTrainer without a loss of its own"):
        SFTTrainer(llama(), **known, compute_loss_func=lambda outputs, labels, num_items_in_batch=None: 0)
    SFTTrainer(llama(), **known, compute_loss_func=None)


def test_the_loss_of_a_router_is_not_left_out_silently(config, tokenizer, records):
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(vocab_size=len(tokenizer), num_key_value_heads=2, num_local_experts=2)
    model = MixtralForCausalLM(MixtralConfig(**sizes))
    with pytest.raises(NoiseError, match="router_aux_loss_coef must be 0 with token_loss 'gem'"):
        SFTTrainer(model, args=config(token_loss="gem"), train_dataset=records, processing_class=tokenizer)
