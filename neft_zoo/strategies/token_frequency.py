from neft_zoo.noise.data_dependent import ByFrequency
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=1)
def token_frequency(rho: Scalar = 0.02, exponent: float = 0.5) -> Strategy:
    r"""Gaussian noise, stronger on rare tokens.

    $$\tilde e_t = e_t + \rho\, w(t)\, z_t, \qquad w(t) \propto \mathrm{count}(t)^{-a}, \quad z \sim N(0, 1)$$

    Rare words are seen seldom, so their embeddings are the first to be memorized. w has mean 1 over the training
    tokens, so rho is the mean size of the noise. The counts come from the trainer's data, or are given to `attach`. No
    published method does this; whether it beats equal noise on all tokens is open.

    Args:
        rho: mean noise per coordinate (in the embedding's own unit, >= 0), a number or a schedule; a trained
            embedding has an rms of 0.01 to 0.1.
        exponent: how much more noise rare tokens get (dimensionless, >= 0); with 0 all get the same.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "token_frequency", "rho": 0.01})`
    """
    return Strategy(ByFrequency(rho, exponent))
