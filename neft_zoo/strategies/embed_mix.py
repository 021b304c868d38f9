from neft_zoo.noise.mixup import EmbedMix
from neft_zoo.objectives.simple import MixedTargets
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1905.08941", version=1)
def embed_mix(a: float = 0.2) -> Strategy:
    r"""Mix the embeddings of two documents of equal length, and their losses alike (experimental).

    $$\tilde e = \lambda e_i + (1-\lambda) e_j,
    \quad \lambda\,\mathrm{CE}(y_i) + (1-\lambda)\,\mathrm{CE}(y_j), \quad \lambda \sim \mathrm{Beta}(a, a)$$

    Mixup for text, made for classifiers; on next-token prediction there is no published evidence. Only documents of
    the same length in one batch are mixed, the others train as usual: sort by length to mix more. One share per
    optimizer step, max(l, 1 - l), so that a document stays the main part of its own input. A trainer's loss other than
    the likelihood (`dft`, label smoothing) takes a second pass.

    Differs from the paper in: sentences of unequal length are padded and mixed there; one share per step, not per
    pair. The larger share for the document itself is [MixText's](https://arxiv.org/abs/2004.12239), which mixes hidden
    layers.

    Args:
        a: parameter of the Beta distribution (> 0); small values mix rarely and a little.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="embed_mix")`
    """
    return Strategy(EmbedMix(a), MixedTargets())
