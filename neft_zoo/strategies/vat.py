from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Sphere
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar, check_scalar
from neft_zoo.objectives.adversarial import SMALLEST_START, VirtualAdversarial
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1704.03976", version=2)
def vat(radius: Scalar = 1.0, start: Scalar = 0.1, weight: Scalar = 1.0, steps: int = 1) -> Strategy:
    r"""VAT: the clean prediction as a fixed target under the worst perturbation.

    $$\mathrm{CE}(e) + \lambda\,\mathrm{KL}(\mathrm{const}(p) \,\Vert\, p_{\epsilon \hat d}),
    \qquad \hat d \leftarrow \nabla_d \mathrm{KL}(p \Vert p_d) / \lVert \cdot \rVert \;\text{ at }\; d = \xi \hat d
    \;\; K \text{ times}$$

    Virtual adversarial training: the clean side is detached, so the divergence cannot be reduced by making the clean
    prediction vague. Power iteration turns a random direction of length xi towards the one in which the prediction
    changes most, which is then scaled to length epsilon. Made for semi-supervised learning; we know of no comparison
    for language models. Three passes.

    Differs from the paper in: xi is 0.1 instead of 1e-6, since differences of predictions that small are rounding
    errors even in float32; norms are of a document's embeddings, as in the paper's sequel on text
    ([1605.07725](https://arxiv.org/abs/1605.07725)), which normalizes its embeddings first and uses a radius of 5;
    there are no unlabelled data. Version 1 added the gradient to the random start, which dominates the direction in
    long documents.

    Args:
        radius: epsilon, norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a schedule.
        start: xi, length at which the direction is searched (in the same unit, >= 1e-6), a number or a schedule.
        weight: weight of the divergence (>= 0), a number or a schedule.
        steps: K, number of power iterations (>= 1).

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "vat", "radius": 0.5})`
    """
    check_scalar("start", start, SMALLEST_START)
    return Strategy(
        AdditiveNoise(Sphere(1.0), ByLength(start)),
        VirtualAdversarial(Ball(radius), "kl", weight, steps, start, constant_clean=True, power=True),
    )
