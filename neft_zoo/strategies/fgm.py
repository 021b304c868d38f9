from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import CleanAndAdversarial
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1605.07725", version=1)
def fgm(eps: Scalar = 1.0) -> Strategy:
    r"""FGM: train on the clean input and on one gradient ascent step from it.

    $$\mathrm{CE}(e) + \mathrm{CE}(e + d), \qquad d = \epsilon\, g / \lVert g \rVert$$

    g is the gradient of the loss with respect to the embeddings, with its norm per document over the real tokens. The
    paper first normalizes the embedding table, so that no model can make the perturbation small beside it; here the
    table stays as it is. Made for text classifiers, where it helped with few labels; we know of no result for language
    models. eps is a length: compare it with the embedding's norm, sqrt(n D) times its rms. Two passes; both train.

    Args:
        eps: length of the step (in the embedding's own unit, >= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "fgm", "eps": 0.5})`
    """
    return Strategy(None, CleanAndAdversarial(Ball(eps)))
