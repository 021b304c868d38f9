from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import FreeAscent
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1909.11764", version=1)
def freelb(steps: int = 2, size: Scalar = 0.1, alpha: Scalar = 0.1, radius: Scalar = 0.3) -> Strategy:
    r"""FreeLB: gradient ascent on the embeddings in which every pass trains the model.

    $$\frac1K \sum_{k} \mathrm{CE}(e + d_k),
    \qquad d_{k+1} = \Pi_{\lVert d \rVert \le r}(d_k + \eta\, g_k / \lVert g_k \rVert)$$

    It starts from NEFTune's noise of strength alpha; with one pass, and a start inside the ball, it is exactly
    NEFTune. A start outside is projected, which the published code does not do. All passes share their dropout masks.
    For: gains on GLUE with encoders. Against: the NEFTune paper compared the two on LLaMA-1-7B and Evol-Instruct:
    62.30 without noise, 63.48 with a tuned FreeLB and 67.45 with NEFTune, which costs one pass. K passes.

    Args:
        steps: K, the number of passes (>= 1).
        size: eta, length of a step (in the embedding's own unit, >= 0), a number or a schedule.
        alpha: strength of the random start (dimensionless, >= 0), as in `neft_uniform`.
        radius: largest norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a
            schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "freelb", "steps": 3})`
    """
    return Strategy(AdditiveNoise(Uniform(), ByLength(alpha)), FreeAscent(Ball(radius), steps, size))
