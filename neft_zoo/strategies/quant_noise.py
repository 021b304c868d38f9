from neft_zoo.passes.weight_noise import RoundingNoise
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2408.15300", version=1)
def quant_noise(bits: int = 4, group: int = 128) -> Strategy:
    r"""Train under the errors of quantizing the weights later.

    $$W + \Delta\, U[-\tfrac12, \tfrac12], \qquad
    \Delta = (\max_g W - \min_g W) / (2^b - 1) \text{ per group } g \text{ of a row}$$

    The noise is distributed like the error of rounding to nearest, on the merged weights with LoRA, and is removed bit
    for bit after every step: use it if the model will be quantized afterwards. For: its authors train a few salient
    columns under such noise and report that quantized LLaMA models recover; a related paper reports a LLaMA-2-7B that
    is as good rounded to nearest at 4 bits as with GPTQ ([2412.06858](https://arxiv.org/abs/2412.06858)). Against: we
    know of no replication. `neft-zoo evaluate --parts quantization` measures the loss after rounding. It needs a copy
    of the weights, and is not for fused experts or DoRA. An embedding table gets noise too if it carries the adapter,
    or is tied to an LM head that gets it.

    Differs from the paper in: GIFT-SW draws normal noise, with a standard deviation of half a step, at every forward
    pass, from steps that are fixed before training; noise is added to all weights of the linear layers that have LoRA,
    or train where there is no adapter, while GIFT-SW keeps the salient columns clean and trains only them, and the
    related paper adds noise to outliers only; the step spans a group's range from its least to its greatest weight,
    while GIFT-SW's is symmetric, per row, with a searched clipping.

    Args:
        bits: b, bits of the later quantization (>= 2).
        group: number of weights in a row that share a step (>= 0); 0 for whole rows.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "quant_noise", "bits": 3})`
    """
    return Strategy(None, weights=RoundingNoise(bits, group))
