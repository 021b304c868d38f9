from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import UNIFORM_RMS, Laplace
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=1)
def neft_laplace(alpha: Scalar = 5.0, match_rms: bool = False) -> Strategy:
    r"""Laplace noise at NEFTune's scale: mostly small, sometimes large.

    $$\tilde e = e + \frac{\alpha}{\sqrt{n D}}\, z, \qquad z \sim \mathrm{Laplace}(0, 1/\sqrt 2)$$

    z has standard deviation 1, three times the energy of uniform noise at the same alpha. No paper recommends it, and
    we know of no result for or against it: use it to test whether heavy tails matter.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule.
        match_rms: divide z by sqrt(3), so that the energy equals that of `neft_uniform` at the same alpha.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "neft_laplace", "match_rms": True})`
    """
    return Strategy(AdditiveNoise(Laplace(UNIFORM_RMS if match_rms else 1.0), ByLength(alpha)))
