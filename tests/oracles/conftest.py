"""The model of the oracles' tests."""

import pytest
import torch
from observed import VOCABULARY, WIDTH


@pytest.fixture
def tiny(llama):
    """Return a maker of tiny float64 Llamas in train mode, whose predictions are far from uniform."""

    def make(seed=0):
        sizes = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, initializer_range=0.3)
        model = llama(seed, **sizes, pad_token_id=0, eos_token_id=1, max_position_embeddings=64).double().train()
        with torch.no_grad():
            for name, norm in list(model.named_modules()):
                if name.endswith("norm"):  # those of transformers compute in float32
                    model.set_submodule(name, torch.nn.RMSNorm(WIDTH, norm.variance_epsilon, dtype=torch.float64))
            model.get_input_embeddings().weight[::5] *= 4  # some tokens louder than others
        return model

    return make
