from neft_zoo.passes.weight_noise import EveryStep
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2409.14396", version=1)
def flat_lora(rho: float = 0.05) -> Strategy:
    r"""Flat-LoRA: train the adapter under noise on the merged weights.

    $$W + BA + \xi, \qquad \xi_i \sim N\!\left(0,\; f^2 \rho^2 \lVert w_i \rVert^2 / n_{in}\right), \quad f: 0 \to 1$$

    Searches for flat minima of the full weights at the cost of one pass: the noise grows during training, in
    proportion to the norm of each row, and the weights are restored bit for bit after every backward pass. The paper
    reports gains over LoRA on GLUE, GSM8K and code; we know of no replication. It needs a copy of the weights, and
    floating-point matrices: not for 4-bit bases, fused experts or DoRA. An embedding table gets noise too if it
    carries the adapter, or is tied to an LM head that does.

    Args:
        rho: noise over the row's rms (dimensionless, >= 0).

    Example:
        `SFTTrainer(model, train_dataset=data, noise="flat_lora")`
    """
    return Strategy(None, weights=EveryStep(rho))
