"""Oracles of what is graded and how much, written from the papers.

stm    Wu et al., arXiv 2501.14315, and the authors' generate_stm_training_data.py and collate_fn.py: a label is
       dropped if exp(-log p_0) > tau, p_0 the model before fine-tuning, in eval mode, of the document alone
dft    Wu et al., arXiv 2508.05629, equations 7 to 9, and its README: each token's loss times its own detached
       probability; averaged over the graded tokens (recipes/controls/dft.yaml)
"""

import copy

import pytest
import torch
import yaml
from observed_draws import IGNORED, TWO, added, agree, alone, many, mean_of_graded, run, small, trained
from small_models import with_lora

from neft_zoo.config import recipe

MANY = many(8, 12)


def perplexities(model, inputs):
    """Return the perplexity of each token, (B, L), under the model without its adapter, documents one by one."""
    twin = copy.deepcopy(model).eval()
    found = torch.full(inputs["labels"].shape, torch.inf, dtype=torch.float64)
    with torch.no_grad(), twin.disable_adapter():
        for row, real in enumerate(inputs["attention_mask"].bool()):
            ids = inputs["input_ids"][row, real]
            logs = twin(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            found[row, 1 : len(ids)] = torch.exp(-logs[range(len(ids) - 1), ids[1:]])
    return found


def graded(model, threshold, inputs, step=0):
    """Return the labels of the pass that trains, and what was seen."""
    labels = []

    def loss(model, inputs):
        labels.append(inputs["labels"])
        return mean_of_graded(model, inputs)

    (seen,) = run(model, {"name": "stm", "threshold": threshold}, inputs, (step,), compute=loss)
    return labels[-1], seen


@pytest.mark.parametrize(
    "share", [pytest.param(0.2, marks=pytest.mark.slow), 0.5, pytest.param(0.8, marks=pytest.mark.slow)]
)
def test_stm_grades_tokens_that_the_starting_model_finds_likely(llama, share):
    model = with_lora(small(llama, initializer_range=0.2)).double().train()
    known = perplexities(model, MANY)
    answers = MANY["labels"] != IGNORED
    threshold = known[answers].sort().values[int(share * answers.sum())].item() * (1 + 1e-6)
    expected = MANY["labels"].masked_fill(known > threshold, IGNORED)
    labels, seen = graded(model, threshold, MANY)
    assert torch.equal(labels[:, 1:], expected[:, 1:])
    assert 0 < (expected != IGNORED).sum() < answers.sum()
    agree(seen, alone(model, MANY, targets=expected))


@pytest.mark.slow
def test_the_models_own_dropout_does_not_move_the_selection(llama):
    model = with_lora(small(llama, attention_dropout=0.5, initializer_range=0.2), lora_dropout=0.5).double().train()
    known = perplexities(model, MANY)
    threshold = known[MANY["labels"] != IGNORED].median().item() * (1 + 1e-6)
    expected = MANY["labels"].masked_fill(known > threshold, IGNORED)
    for step in range(2):
        assert torch.equal(graded(model, threshold, MANY, step)[0][:, 1:], expected[:, 1:])


def test_stm_without_a_likely_token_has_no_loss(llama):
    (seen,) = run(with_lora(small(llama)).double(), {"name": "stm", "threshold": 1.0})
    assert seen.loss == 0
    assert not any(slope.any() for slope in seen.gradients.values())


@pytest.mark.parametrize(
    "noise", [pytest.param("none", marks=pytest.mark.slow), {"name": "neft_uniform", "alpha": 0.1}]
)
def test_dfts_loss_and_gradients_of_documents_with_the_observed_noise(llama, tokenizer, tmp_path, noise):
    control = yaml.safe_load((recipe.folder() / "controls" / "dft.yaml").read_text())
    model = small(llama)
    twin = copy.deepcopy(model)  # the trainer changes the model's forward pass
    seen, inputs = trained(model, noise, TWO, tokenizer, tmp_path, loss_type=control["loss_type"])
    extra, real = added(seen, twin, inputs), inputs["attention_mask"].bool()
    assert bool(extra.any()) == (noise != "none")
    expected = alone(
        twin, inputs, edit=lambda row, clean: clean + extra[row, real[row]], weight=lambda log: log.exp().detach()
    )
    agree(seen, expected, dict(rtol=1e-5, atol=1e-7))
