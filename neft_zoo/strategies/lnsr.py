from neft_zoo.noise.additive import AdditiveNoise, AtLayers
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Relative
from neft_zoo.noise.schedules import Scalar, check_count, check_scalar
from neft_zoo.objectives.consistency import LayerStability
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2107.04835", version=2)
def lnsr(size: Scalar = 0.1, weight: Scalar = 1.0, first: int = 0) -> Strategy:
    r"""LNSR: hidden states should be stable under noise at a lower layer.

    $$\mathrm{CE} + \lambda \sum_{l \ge b} \lVert f_l(h_b) - f_l(h_b + z) \rVert^2 / D,
    \qquad z_t = s\,\mathrm{rms}(h_{b,t})\,g_t, \quad g \sim N(0, 1)$$

    Noise is added at the input of layer b, and the output f of that layer and of every higher one should be stable,
    summed over the real tokens and divided by the number of graded ones, as the loss is: beside long prompts it weighs
    more. The paper reports more stable fine-tuning of BERT and RoBERTa on small data sets; we know of no result for
    causal models. A large weight keeps the lower layers from changing. Twice the cost of a step.

    Differs from the paper in: one weight for all layers, and the squared distance divided by the width, so that it
    carries over between models; noise in proportion to each token's own state. The paper's noise that interpolates
    towards another record is not offered, and its weights could not be checked. Version 1 added the noise at the
    embedding for any b, and compared the last layer after the final norm.

    Args:
        size: noise rms over the rms of the token's state (dimensionless, >= 0), a number or a schedule.
        weight: weight of the distance (>= 0), a number or a schedule.
        first: b, the decoder layer whose input gets noise (>= 0), counted from 0; its output and all higher ones are
            compared.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "lnsr", "weight": 0.1})`
    """
    check_scalar("size", size)
    check_count("first", first)
    return Strategy(AtLayers(AdditiveNoise(Gaussian(), Relative(size)), (first,)), LayerStability(weight, first))
