from neft_zoo.noise.additive import AdditiveNoise, AtLayers, Layers
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import Ascent
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2402.01109", version=1)
def vaccine(rho: Scalar = 2.0, layers: Layers = "all") -> Strategy:
    r"""Vaccine: perturb the hidden states of all layers along their gradient, with one joint norm.

    $$\mathrm{CE}(h_1 + d_1, \ldots, h_L + d_L), \qquad
    d_l = \rho\, g_l / \lVert (g_1, \ldots, g_L) \rVert, \quad g_l = \nabla_{h_l} \mathrm{CE}$$

    Made for alignment that survives harmful fine-tuning: the model is aligned under the drift that harmful data would
    cause, without needing such data. For: its authors report lower harmful scores after attacks on LLaMA-2, OPT and
    Vicuna. Against: later work by the same group does better (T-Vaccine, Booster), and it does not make a model more
    accurate. Layers with larger gradients are perturbed more. Two passes; the second one trains.

    Differs from the paper in: the inputs of decoder layers are perturbed, while the [published
    code](https://github.com/git-disl/Vaccine) perturbs the outputs of attention, hidden from autograd (through
    `.data`); and the norm is that of a document, not of the batch, so that a document is perturbed alike in any batch.
    The default rho is that code's.

    Args:
        rho: norm of a document's perturbation over its tokens and layers (in the hidden states' unit, >= 0), a number
            or a schedule.
        layers: `all`, or a list of layer numbers (negative ones count from the end) or of fractions of the depth.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "vaccine", "rho": 0.5})`
    """
    return Strategy(
        AtLayers(AdditiveNoise(Gaussian(), Fixed(0.0)), layers), Ascent(Ball(rho, joint=True), steps=1, size=rho)
    )
