from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import UNIFORM_RMS, Gaussian
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2310.05914", version=1)
def neft_gaussian(alpha: Scalar = 5.0, match_rms: bool = False) -> Strategy:
    r"""Gaussian noise at NEFTune's scale, the paper's ablation.

    $$\tilde e = e + \frac{\alpha}{\sqrt{n D}}\, z, \qquad z \sim N(0, 1)$$

    At equal alpha it has three times the energy of uniform noise, so the paper's own comparison (AlpacaEval by ChatGPT
    on Alpaca: 62.55 uniform, 60.93 Gaussian) does not separate distribution from strength; at equal energy both
    trained alike on a small model. Use it for unbounded noise, for instance to compare with differential privacy.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule.
        match_rms: divide z by sqrt(3), so that the energy equals that of `neft_uniform` at the same alpha.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "neft_gaussian", "match_rms": True})`
    """
    return Strategy(AdditiveNoise(Gaussian(UNIFORM_RMS if match_rms else 1.0), ByLength(alpha)))
