from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Relative
from neft_zoo.noise.schedules import Scalar, check_scalar
from neft_zoo.objectives.consistency import LayerStability
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2107.04835", version=1)
def lnsr(size: Scalar = 0.1, weight: Scalar = 1.0, first: int = 0) -> Strategy:
    r"""LNSR: hidden states must not move much when the embeddings do.

    $$\mathrm{CE}(e) + \lambda \sum_{l \ge b} \lVert h_l(e) - h_l(e + z) \rVert^2 / D,
    \qquad z_t = s\,\mathrm{rms}(e_t)\,g_t, \quad g \sim N(0, 1)$$

    Noise stability of the output of every layer from b on, over the real tokens. The paper reports steadier
    fine-tuning of BERT and RoBERTa on small data sets; we know of no result for causal models. A large weight
    freezes what the lower layers do. Twice the cost of a step.

    Args:
        size: noise rms over embedding rms (dimensionless, >= 0), a number or a schedule.
        weight: of the distance (>= 0), a number or a schedule.
        first: b, the first decoder layer whose output counts (>= 0), counted from 0.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "lnsr", "weight": 0.1})`
    """
    check_scalar("size", size)
    return Strategy(AdditiveNoise(Gaussian(), Relative(size)), LayerStability(weight, first))
