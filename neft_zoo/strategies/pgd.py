from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import Ascent
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1706.06083", version=1)
def pgd(steps: int = 2, size: Scalar = 0.1, radius: Scalar = 0.3, alpha: Scalar = 0.1) -> Strategy:
    r"""PGD: a few gradient ascent steps from a random start, then one pass that trains.

    $$d \leftarrow \Pi_{\lVert d \rVert \le r}(d + \eta\, g / \lVert g \rVert) \;\; K \text{ times},
    \qquad \mathrm{CE}(e + d)$$

    Projected gradient ascent on the embeddings from NEFTune's noise, per document; only the last pass trains. Made for
    robustness to attacks: the model withstands perturbed embeddings better, and is often slightly worse on clean text.
    Not the first choice for better answers. K + 1 passes.

    Args:
        steps: K (>= 0); with 0, the random start is the perturbation.
        size: length of a step (in the embedding's own unit, >= 0), a number or a schedule.
        radius: largest norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a
            schedule.
        alpha: strength of the random start, as in `neft_uniform`; a start outside the ball is projected.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "pgd", "steps": 3})`
    """
    return Strategy(AdditiveNoise(Uniform(), ByLength(alpha)), Ascent(Ball(radius), steps, size))
