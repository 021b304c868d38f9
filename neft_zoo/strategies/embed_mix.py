from neft_zoo.noise.mixup import EmbedMix
from neft_zoo.objectives.simple import MixedTargets
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1905.08941", version=1)
def embed_mix(a: float = 0.2) -> Strategy:
    r"""Mixup of the embeddings, and of the losses, of two documents of equal length (experimental).

    $$\tilde e = \lambda e_i + (1-\lambda) e_j,
    \quad \lambda\,\mathrm{CE}(y_i) + (1-\lambda)\,\mathrm{CE}(y_j), \quad \lambda \sim \mathrm{Beta}(a, a)$$

    Mixup for text, made for classifiers; there is no published evidence on next-token prediction. Only documents of
    the same length in one batch are mixed, the others are trained on as usual: sort by length to mix more. There is
    one share per optimizer step, max(l, 1 - l), so that a document remains the main part of its own input. A loss
    other than a trainer's likelihood (`dft`, label smoothing, any loss through `attach`) requires a second pass.

    Differs from the paper in: the paper pads and mixes sentences of unequal length, and draws one share per pair, not
    per step. Giving the larger share to the document itself comes from [MixText](https://arxiv.org/abs/2004.12239),
    which mixes hidden layers.

    Args:
        a: parameter of the Beta distribution (> 0); small values mix rarely and weakly.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="embed_mix")`
    """
    return Strategy(EmbedMix(a), MixedTargets())
