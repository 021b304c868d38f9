from neft_zoo.passes.weight_dropout import Mixout
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1909.11299", version=1)
def mixout(p: float = 0.7) -> Strategy:
    r"""Mixout: weights fall back to their pretrained values at random.

    $$\tilde W = W_0 + \frac{m}{1 - p}\,(W - W_0),
    \qquad m \sim \mathrm{Bernoulli}(1 - p) \text{ per input of a layer}$$

    Dropout towards the model that training began with, instead of towards 0: it holds fine-tuning near the start, more
    the further it goes. For: steadier fine-tuning of BERT-large on small GLUE tasks in the paper. Against: with a
    corrected optimizer and more steps another team saw most of that advantage go
    ([2006.05987](https://arxiv.org/abs/2006.05987)); we know of no result for causal models. It needs two copies of
    the linear weights, and is for full fine-tuning: under LoRA it is what `lora_dropout` does.

    Differs from the paper in: one draw per optimizer step; weights that an embedding shares, and those that are no
    linear layer's, are left alone. The [published code](https://github.com/bloodwass/mixout) does not divide the
    gradient by 1 - p.

    Args:
        p: probability that an input of a layer falls back (0 to 1, 1 excluded); the paper tries 0.7, 0.8 and 0.9.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="mixout")`
    """
    return Strategy(None, weights=Mixout(p))
