from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import SharedByToken
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import FreeAscent
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2004.14543", version=1)
def token_vat(steps: int = 2, size: Scalar = 0.1, alpha: Scalar = 0.1, radius: Scalar = 0.3) -> Strategy:
    r"""Token-aware ascent: a document's budget goes to the tokens that matter.

    $$d_t \leftarrow d_t + \eta\, n_t\, g_t / \lVert g_t \rVert,
    \qquad n_t = \lVert g_t \rVert / \max_s \lVert g_s \rVert, \quad \lVert d \rVert \le r$$

    Equal tokens start from equal noise, and every token moves by its own share n_t of the step, while the document
    stays in its ball; all passes train. The paper keeps a table of perturbations for the whole vocabulary during
    training; here the start is shared within a step, so that a strategy holds no state. It gained on classification
    and tagging with encoders; we know of no result for text that is generated. K passes.

    Args:
        steps: K, the number of passes (>= 1).
        size: eta, length of the largest token's step (in the embedding's own unit, >= 0), a number or a schedule.
        alpha: strength of the random start (dimensionless, >= 0), as in `neft_uniform`.
        radius: largest norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a
            schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="token_vat")`
    """
    return Strategy(
        AdditiveNoise(SharedByToken(), ByLength(alpha)),
        FreeAscent(Ball(radius, direction="token_share"), steps, size),
    )
