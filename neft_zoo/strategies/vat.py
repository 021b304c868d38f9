from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import VirtualAdversarial
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1704.03976", version=1)
def vat(
    radius: Scalar = 1.0, start: Scalar = 1e-3, size: Scalar = 1.0, weight: Scalar = 1.0, steps: int = 1
) -> Strategy:
    r"""VAT: the clean prediction as a fixed target under the worst perturbation.

    $$\mathrm{CE}(e) + \lambda\,\mathrm{KL}(\mathrm{const}(p) \,\Vert\, p_{d}),
    \qquad d = \mathrm{argmax}_{\lVert d \rVert \le \epsilon} \mathrm{KL}(p \Vert p_d)$$

    Virtual adversarial training: no gradient flows into the clean side, so it cannot be met by making the clean
    prediction vague. Made for semi-supervised learning; for language models we know of no comparison.
    Three passes.

    Args:
        radius: largest norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a
            schedule.
        start: standard deviation of the random start (>= 0), a number or a schedule.
        size: length of an ascent step (>= 0), a number or a schedule.
        weight: of the divergence (>= 0), a number or a schedule.
        steps: ascent steps (>= 1).

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "vat", "radius": 0.5})`
    """
    return Strategy(
        AdditiveNoise(Gaussian(), Fixed(start)),
        VirtualAdversarial(Ball(radius), "kl", weight, steps, size, constant_clean=True),
    )
