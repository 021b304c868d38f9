from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Relative
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=1)
def token_relative(rho: Scalar = 0.1) -> Strategy:
    r"""Gaussian noise in proportion to each token's own embedding: the same signal-to-noise ratio on every model.

    $$\tilde e_t = e_t + \rho\,\mathrm{rms}(e_t)\, z_t, \qquad z \sim N(0, 1)$$

    The same NEFTune alpha gives noise of 0.80 of the embedding on one architecture and 0.05 on another, since
    embeddings differ in scale. rho is a ratio, so a value such as 0.1 carries over between models. Use it for models
    that scale their embeddings (Gemma, Granite), or to compare models with each other.

    Args:
        rho: noise rms over embedding rms (dimensionless, >= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "token_relative", "rho": 0.05})`
    """
    return Strategy(AdditiveNoise(Gaussian(), Relative(rho)))
