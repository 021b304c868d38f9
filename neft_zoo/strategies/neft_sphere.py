from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Sphere
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=2)
def neft_sphere(alpha: Scalar = 5.0) -> Strategy:
    r"""A random direction per document, with the fixed norm that NEFTune's noise has on average.

    $$\tilde e = e + \frac{\alpha}{\sqrt 3}\,\frac{g}{\lVert g \rVert}, \qquad g \sim N(0, I_{nD})$$

    The norm is over the document's n real tokens and D features. It separates direction from norm: if it does as well
    as `neft_uniform`, the variation of the norm did not matter. In high dimension the two hardly differ.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule; the radius is alpha / sqrt(3).

    Example:
        `SFTTrainer(model, train_dataset=data, noise="neft_sphere")`
    """
    return Strategy(AdditiveNoise(Sphere(), ByLength(alpha)))
