from neft_zoo.passes.weight_noise import OnceRelative
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2202.12024", version=1)
def noisy_tune(strength: float = 0.15) -> Strategy:
    r"""NoisyTune: add noise to every trainable matrix once, before training.

    $$W \leftarrow W + U[-\lambda/2, \lambda/2]\;\mathrm{std}(W)$$

    The paper reports small, consistent gains on GLUE for encoders; we know of no result for causal models. It costs
    nothing and is applied once: not again in a resumed run. With LoRA, noise is added to the adapter's own matrices,
    since the adapter will later be used with the unchanged base. Too much noise destroys what was pretrained.

    Differs from the paper in: biases and the weights of norms are left as they are; the paper's code adds noise to
    every parameter.

    Args:
        strength: width of the noise over the matrix's standard deviation (dimensionless, >= 0).

    Example:
        `SFTTrainer(model, train_dataset=data, noise="noisy_tune")`
    """
    return Strategy(None, weights=OnceRelative(strength))
