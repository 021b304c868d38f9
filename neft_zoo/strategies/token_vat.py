from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import SharedByToken, Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.objectives.token_aware import TokenAwareAscent
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2004.14543", version=2)
def token_vat(steps: int = 2, size: Scalar = 0.1, alpha: Scalar = 0.1, radius: Scalar = 0.3) -> Strategy:
    r"""Token-aware VAT: gradient ascent that perturbs important tokens more.

    $$\delta \leftarrow \delta + \eta\, g / \lVert g \rVert, \quad
    u_t \leftarrow n_t\,(u_t + \eta\, g_t / \lVert g_t \rVert),
    \quad n_t = \lVert u_t \rVert / \max_s \lVert u_s \rVert, \quad \lVert \delta + u \rVert \le r$$

    The sum of two perturbations is added: delta ascends as in FreeLB, while u ascends along each token's own gradient
    and is weighted by n_t, its norm relative to the largest. Equal tokens start from the same u, and all passes train
    on e + delta + u. It gained on classification and tagging with encoders; we know of no result for text generation.
    K passes.

    Differs from the paper in: u starts from noise that equal tokens share within an optimizer step, while the paper
    stores the last u of every token in the vocabulary during training; a strategy here is stateless. The start is
    projected into the ball too. n_t is computed from u after its step, as in the [published
    code](https://github.com/LinyangLee/Token-Aware-VAT), which divides its starting u by the norm of the whole batch.
    Version 1 had one perturbation and computed the weights from the gradient.

    Args:
        steps: K, the number of passes (>= 1).
        size: eta, length of a document's and of a token's step (in the embedding's own unit, >= 0), a number or a
            schedule.
        alpha: strength of both random starts (dimensionless, >= 0), as in `neft_uniform`.
        radius: largest norm of a document's perturbation (in the embedding's own unit, >= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="token_vat")`
    """
    return Strategy(
        AdditiveNoise(SharedByToken(), ByLength(alpha)),
        TokenAwareAscent(Ball(radius), AdditiveNoise(Uniform(), ByLength(alpha)), steps, size),
    )
