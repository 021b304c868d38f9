"""Models that write into the embeddings after the lookup, as many vision models do with image features."""

import pytest
import torch
from selection import NEED_OTHER_MODELS, one_of_each_kind, quick
from small_models import fitting
from transformers import LlamaConfig, LlamaForCausalLM

from neft_zoo import attach, registry

IDS = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(0))
IMAGE = 7
NAMES = sorted({*registry.builtin_names()} - {"masked_thought"} - NEED_OTHER_MODELS)


class WithImage(LlamaForCausalLM):
    """A Llama in whose embeddings a feature is put in the place of a token."""

    in_place = True

    def forward(self, input_ids, **inputs):
        embeds, here = self.get_input_embeddings()(input_ids), (input_ids == IMAGE)[..., None]
        if self.in_place:
            embeds[here[..., 0]] = self.feature.to(embeds)
        else:
            embeds = torch.where(here, self.feature.to(embeds), embeds)
        return super().forward(inputs_embeds=embeds, **inputs)


def gradients(noise, dtype, in_place):
    """Return loss and gradients of one step."""
    torch.manual_seed(0)
    numbers = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = WithImage(LlamaConfig(**numbers, attention_dropout=0.1)).to(dtype).train()
    model.feature, model.in_place = torch.nn.Parameter(torch.ones(16)), in_place
    ids = IDS.clone()
    ids[:, 4:6] = IMAGE
    torch.manual_seed(1)
    loss = attach(model, noise, total_steps=1, token_counts=torch.ones(64).long()).loss(
        {"input_ids": ids, "labels": ids.clone()}
    )
    loss.backward()
    return [loss.detach(), *(weight.grad for weight in model.parameters())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", quick(NAMES, *one_of_each_kind(NAMES)))
def test_values_and_gradients_are_those_of_a_model_that_does_not(name, dtype):
    if dtype == torch.bfloat16 and name in ("noisy_tune", "flat_lora", "mixout", "quant_noise", "sam"):
        pytest.skip("noise on the weights")
    ours, expected = (gradients(fitting(name), dtype, in_place) for in_place in (True, False))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in ours)
