from neft_zoo.passes.weight_noise import OnceRelative
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2202.12024", version=1)
def noisy_tune(strength: float = 0.15) -> Strategy:
    r"""NoisyTune: shake every trainable matrix once, before training.

    $$W \leftarrow W + U[-\lambda/2, \lambda/2]\;\mathrm{std}(W)$$

    The paper reports small, steady gains on GLUE for encoders; we know of no result for causal models. It costs
    nothing and is done once: a resumed run is not shaken again. Under LoRA the adapter's own matrices are shaken,
    as the base must stay what it was when the adapter is used later. Too much strength forgets what was pretrained.

    Args:
        strength: width of the noise over the matrix's standard deviation (dimensionless, >= 0).

    Example:
        `SFTTrainer(model, train_dataset=data, noise="noisy_tune")`
    """
    return Strategy(None, weights=OnceRelative(strength))
