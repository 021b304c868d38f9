from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.sharpness import SharpnessAware
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2010.01412", version=1)
def sam(rho: Scalar = 0.05) -> Strategy:
    r"""SAM: sharpness-aware minimization, which trains at weights perturbed along the gradient.

    $$\mathrm{CE}(W + \rho\, g / \lVert g \rVert), \qquad g = \nabla_W \mathrm{CE}(W)$$

    The norm is over all trainable weights; the optimizer gets the gradient at the perturbed weights, which are then
    restored bit for bit. For: gains for image classifiers from scratch and under label noise; a second team reports
    gains with T5 on SuperGLUE and closed-book questions ([2110.08529](https://arxiv.org/abs/2110.08529)). Against:
    with LoRA only the adapter's own matrices are perturbed, a small part of the directions in which the merged weights
    could be sharp. Two passes, and a copy of the trainable weights, which should be in float32: a step that
    rounding to 16 bits takes is refused.

    Differs from the paper in: with gradient accumulation, or on several devices, every micro-batch is perturbed along
    its own gradient, as the paper does per device.

    Args:
        rho: norm of the weights' perturbation (in their own unit, >= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "sam", "rho": 0.02})`
    """
    return Strategy(None, SharpnessAware(rho))
