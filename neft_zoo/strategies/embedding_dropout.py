from neft_zoo.noise.cutoff import ElementDropout
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1512.05287", version=1)
def embedding_dropout(p: Scalar = 0.1) -> Strategy:
    r"""Dropout on the coordinates of the embeddings.

    $$\tilde e = e \odot m / (1 - p), \qquad m \sim \mathrm{Bernoulli}(1 - p)$$

    Multiplicative noise: large coordinates change more, and only the kept coordinates pass a gradient. Made for
    recurrent models. On a small model it did as well as NEFTune at an equal effect on the training loss; we know of no
    larger comparison. The cheapest alternative to try, unless the model already has dropout.

    Differs from the paper in: the paper drops whole words, each at all its places in a document; here each coordinate
    of each token is dropped by itself, as by a dropout layer after the embedding.

    Args:
        p: probability that a coordinate is set to 0 (0 to 1, 1 excluded), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="embedding_dropout")`
    """
    return Strategy(ElementDropout(p))
