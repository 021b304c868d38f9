from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import VirtualAdversarial
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1911.03437", version=1)
def smart(
    radius: Scalar = 1e-5, start: Scalar = 1e-5, size: Scalar = 1e-3, weight: Scalar = 1.0, steps: int = 1
) -> Strategy:
    r"""SMART: predictions must not change under the worst small perturbation.

    $$\mathrm{CE}(e)
    + \lambda \max_{\lVert d \rVert \le \epsilon} [\mathrm{KL}(p \Vert p_d) + \mathrm{KL}(p_d \Vert p)]$$

    The perturbation is found by ascent on the divergence from Gaussian noise and projected into the ball of that
    radius, per document; in published code the radius is only a guard against division by zero. The paper reports
    gains on GLUE and with few examples of a new domain, for encoders; we know of no result for large causal models.
    Its defaults vanish in bf16 and are tiny for language models: raise radius and size together. Three passes.

    Args:
        radius: largest norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a
            schedule.
        start: standard deviation of the random start (>= 0), a number or a schedule.
        size: length of an ascent step (>= 0), a number or a schedule.
        weight: of the divergence (>= 0), a number or a schedule.
        steps: ascent steps (>= 1).

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "smart", "radius": 0.5, "size": 0.5})`
    """
    return Strategy(
        AdditiveNoise(Gaussian(), Fixed(start)),
        VirtualAdversarial(Ball(radius), "symmetric_kl", weight, steps, size),
    )
