from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import UNIFORM_RMS, Rademacher
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2312.01523", version=1)
def neft_bernoulli(alpha: Scalar = 5.0, match_rms: bool = False) -> Strategy:
    r"""Random signs at NEFTune's scale: one half of SymNoise, at the cost of one pass.

    $$\tilde e = e + \frac{\alpha}{\sqrt{n D}}\, z, \qquad z \in \{-1, +1\}$$

    Every coordinate changes by the same amount, which gives the largest energy within NEFTune's bound: three times
    that of uniform noise. Use it to test whether the pair in SymNoise is worth its second pass.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule.
        match_rms: divide z by sqrt(3), so that the energy equals that of `neft_uniform` at the same alpha.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="neft_bernoulli")`
    """
    return Strategy(AdditiveNoise(Rademacher(UNIFORM_RMS if match_rms else 1.0), ByLength(alpha)))
