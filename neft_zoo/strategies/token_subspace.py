from typing import Literal

from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.data_dependent import Projected
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=1)
def token_subspace(alpha: Scalar = 5.0, k: int = 64, keep: Literal["off", "onto"] = "off") -> Strategy:
    r"""NEFTune's noise, projected off (or onto) the principal directions of the embedding table.

    $$\tilde e = e + (I - P_k)\,\frac{\alpha}{\sqrt{n D}}\, z, \qquad z \sim U[-1, 1]$$

    P_k projects onto the k directions in which the rows of the embedding table vary most. Projected off them, the
    noise preserves what distinguishes common tokens; projected onto them, it perturbs only that. The projection
    removes energy: compare at equal `noise/rms`, not at equal alpha. An open idea without a published comparison.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule.
        k: number of principal directions (1 to the model's width - 1).
        keep: `off` for noise orthogonal to those directions, `onto` for noise within them.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "token_subspace", "k": 32})`
    """
    return Strategy(Projected(AdditiveNoise(Uniform(), ByLength(alpha)), k, keep))
