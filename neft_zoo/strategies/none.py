from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=1)
def none() -> Strategy:
    r"""Plain fine-tuning: the baseline of every comparison.

    $$\tilde e = e$$

    Bit-identical to the trainer without this package. Use it as the baseline that a regularizer must beat, at the end
    of training and at the best checkpoint.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="none")`
    """
    return Strategy(noise=None)
