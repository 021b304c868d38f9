from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed, Relative
from neft_zoo.noise.schedules import Scalar, check_scalar
from neft_zoo.objectives.adversarial import SMALLEST_START, VirtualAdversarial
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1911.03437", version=2)
def smart(
    radius: Scalar = 0.02,
    start: Scalar = 0.02,
    size: Scalar = 1.0,
    weight: Scalar = 1.0,
    steps: int = 1,
    relative: bool = True,
) -> Strategy:
    r"""SMART: consistent predictions under the worst small perturbation.

    $$\mathrm{CE}(e)
    + \lambda \max_{\lVert d \rVert_\infty \le \epsilon} [\mathrm{KL}(p \Vert p_d) + \mathrm{KL}(p_d \Vert p)], \qquad
    d \leftarrow \Pi_\epsilon(d + \eta\, g / \lVert g \rVert_\infty), \quad d_0 \sim N(0, \sigma^2)$$

    The perturbation is found by gradient ascent on the divergence, starting from Gaussian noise. None of its
    coordinates exceeds the radius, and the largest coordinate of a step is eta. The paper reports gains on GLUE and
    with few examples of a new domain, for encoders; we know of no result for large causal models. Three passes.

    Differs from the paper in: epsilon, sigma and eta are fractions of the embedding's rms, with the paper's ratios but
    at a size that affects language models (the paper's own `relative=False` with `radius=1e-5, start=1e-5, size=1e-3`
    has no effect there and vanishes in bf16); the proximal term to a moving average of the model, the second half of
    the method, is missing; the divergence is averaged over graded tokens. In the published code epsilon only guards
    against division by zero, and no gradient flows into the first argument of either KL, which halves them: its weight
    of 1 is one of 0.5 here. Version 1 used the L2 norm of a document, in which the start dominated the gradient.

    Args:
        radius: epsilon, largest coordinate of the perturbation (a fraction of the mean rms of the document's
            embeddings, or in their own unit; >= 0), a number or a schedule.
        start: sigma, standard deviation of the random start (in the same unit, >= 1e-6), a number or a schedule.
        size: eta, largest coordinate of an ascent step (in the same unit, >= 0), a number or a schedule.
        weight: lambda, weight of the divergence (>= 0), a number or a schedule.
        steps: ascent steps (>= 1).
        relative: read radius, start and size as fractions of the embeddings' rms.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "smart", "radius": 0.05, "start": 0.05})`
    """
    check_scalar("start", start, SMALLEST_START)
    return Strategy(
        AdditiveNoise(Gaussian(), Relative(start, "document") if relative else Fixed(start)),
        VirtualAdversarial(Ball(radius, "coordinate", relative=relative), "symmetric_kl", weight, steps, size),
    )
