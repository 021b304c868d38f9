from neft_zoo.passes.weight_dropout import Mixout
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1909.11299", version=1)
def mixout(p: float = 0.7) -> Strategy:
    r"""Mixout: reset random weights to their pretrained values.

    $$\tilde W = W_0 + \frac{m}{1 - p}\,(W - W_0),
    \qquad m \sim \mathrm{Bernoulli}(1 - p) \text{ per input of a layer}$$

    Dropout towards the starting model instead of towards 0: it pulls fine-tuning back towards the start, more strongly
    the further it has moved. For: more stable fine-tuning of BERT-large on small GLUE tasks in the paper. Against:
    with a corrected optimizer and more steps, another team saw most of that advantage disappear
    ([2006.05987](https://arxiv.org/abs/2006.05987)); we know of no result for causal models. It needs two copies of
    the linear weights, and is for full fine-tuning (with LoRA, `lora_dropout` has the same effect) of models without
    fused experts. A resumed run needs the model that it started from, not one loaded from the checkpoint, whose
    weights would be taken for the pretrained ones.

    Differs from the paper in: one draw per optimizer step; weights tied to an embedding, and weights outside of linear
    layers, are not changed. The [published code](https://github.com/bloodwass/mixout) does not divide the gradient by
    1 - p.

    Args:
        p: probability that an input of a layer is reset (0 to 1, 1 excluded); the paper tries 0.7, 0.8 and 0.9.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="mixout")`
    """
    return Strategy(None, weights=Mixout(p))
