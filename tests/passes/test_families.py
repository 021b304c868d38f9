"""TRL's SFTTrainer trains every family of language models with noise, and without strength as it does alone."""

import math

import pytest
import trl
from architectures import TEXT, text
from datasets import Dataset
from selection import quick
from small_models import same, weights

from neft_zoo import SFTTrainer
from neft_zoo.passes.anatomy import find_embedding

LENGTHS = [5 + 3 * i % 10 for i in range(8)]
ROWS = Dataset.from_list([{"input_ids": [3 + (7 * i + 5 * t) % 55 for t in range(n)]} for i, n in enumerate(LENGTHS)])
LOUD = {"name": "neft_uniform", "alpha": 20}


@pytest.mark.cell("Architectures", "{family}")
@pytest.mark.parametrize("family", quick(TEXT, "llama", "gemma", "gpt2", "qwen3"))
def test_trl_trains_it(config, tokenizer, family):
    def run(cls, **noise):
        trainer = cls(text(family), args=config(max_steps=2), train_dataset=ROWS, processing_class=tokenizer, **noise)
        trainer.train()
        return trainer

    plain, still, noisy = run(trl.SFTTrainer), run(SFTTrainer, noise={**LOUD, "alpha": 0}), run(SFTTrainer, noise=LOUD)
    assert same(weights(still.model), weights(plain.model)) and not same(weights(noisy.model), weights(plain.model))
    width = find_embedding(noisy.model).weight.shape[1]  # 16 in OPT, which has a projection behind it
    for line in noisy.state.log_history[:2]:
        assert math.isfinite(line["loss"])
        bounds = [20 / math.sqrt(3 * n * width) for n in (max(LENGTHS), min(LENGTHS))]
        assert 0.95 * bounds[0] < line["noise/rms"] < 1.05 * bounds[1]
    # A mixture of experts has hooks of its own, for its router's logits.
    one, other = (
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in t.model.modules()] for t in (plain, noisy)
    )
    assert one == other
