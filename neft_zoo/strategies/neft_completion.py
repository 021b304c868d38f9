from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.noise.tokens import Tokens
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2310.05914", version=1)
def neft_completion(alpha: Scalar = 5.0) -> Strategy:
    r"""NEFTune on the completion only: the tokens that the loss grades.

    $$\tilde e_t = e_t + [t \in \text{completion}]\,\frac{\alpha}{\sqrt{n D}}\, z_t, \qquad z \sim U[-1, 1]$$

    The prompt is unchanged, and the model learns to continue a slightly wrong answer, as it must when it generates.
    The paper adds noise to both; nothing published compares the two.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule; n still counts the whole document.

    Raises:
        NoiseError: if the batch has no labels.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="neft_completion")`
    """
    return Strategy(AdditiveNoise(Uniform(), ByLength(alpha), Tokens("completion")))
