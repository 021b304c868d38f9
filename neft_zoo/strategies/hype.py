from typing import Literal

from neft_zoo.noise.additive import AdditiveNoise, AtLayers, Layers
from neft_zoo.noise.distributions import Gaussian, Uniform
from neft_zoo.noise.scales import Fixed, Relative
from neft_zoo.noise.schedules import Scalar, check_scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2212.08853", version=1)
def hype(
    size: Scalar = 1e-5,
    what: Literal["gaussian", "uniform"] = "gaussian",
    relative: bool = False,
    layers: Layers = "all",
) -> Strategy:
    r"""HyPe: small noise on the input of every decoder layer.

    $$\tilde h_l = h_l + s\, z_l, \qquad z_l \sim N(0, 1) \text{ or } U[-1, 1]$$

    The paper reports better fine-tuning of small encoders with noise of 1e-5. In bf16 that is far below a rounding
    step: one coordinate in many thousands changes. Use `relative` there, which makes the size a fraction of each
    token's hidden rms. No published result for large language models.

    Differs from the paper in: dropout is not changed, while the paper turns it off in perturbed passes. Most language
    models have none; set `lora_dropout` (0.05 in the shipped recipes) or `attention_dropout` to 0 for the paper's
    setting. The published code draws its uniform noise from U[0, 1), whose mean is not 0.

    Args:
        size: noise per coordinate (in the hidden states' unit, or a fraction of their rms; >= 0), a number or a
            schedule.
        what: the distribution.
        relative: read `size` as a fraction of the token's own rms.
        layers: `all`, or a list of layer numbers (negative ones count from the end) or of fractions of the depth.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "hype", "size": 0.01, "relative": True})`
    """
    check_scalar("size", size)
    return Strategy(
        AtLayers(
            AdditiveNoise(
                Gaussian() if what == "gaussian" else Uniform(), Relative(size) if relative else Fixed(size)
            ),
            layers,
        )
    )
