from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.sharpness import SharpnessAware
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2010.01412", version=1)
def sam(rho: Scalar = 0.05) -> Strategy:
    r"""SAM: train at the weights one step uphill, and so towards flat minima.

    $$\mathrm{CE}(W + \rho\, g / \lVert g \rVert), \qquad g = \nabla_W \mathrm{CE}(W)$$

    Sharpness-aware minimization. The norm is over all weights that train; what the optimizer gets is the gradient at
    the moved weights, which are put back bit for bit. For: gains for image classifiers from scratch and under label
    noise; with T5 a second team reports gains on SuperGLUE and closed-book questions
    ([2110.08529](https://arxiv.org/abs/2110.08529)). Against: under LoRA only the adapter's own matrices move, a small
    part of the directions in which the merged weights could be sharp. Two passes, and a copy of the weights that
    train.

    Differs from the paper in: with gradient accumulation, or on several devices, every micro-batch climbs by its own
    gradient, as the paper does between devices.

    Args:
        rho: how far the weights are moved (in their own unit, >= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "sam", "rho": 0.02})`
    """
    return Strategy(None, SharpnessAware(rho))
