from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.noise.schedules import Scalar, check_scalar
from neft_zoo.objectives.consistency import Consistency
from neft_zoo.passes.divergences import Divergence
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2010.12638", version=1)
def pdr(eps: Scalar = 1e-3, weight: Scalar = 1.0, divergence: Divergence = "js") -> Strategy:
    r"""PDR: consistent predictions under noise, in a choice of divergences.

    $$\mathrm{CE}(e) + a\,D_f(p, q), \qquad q \text{ from } e + z, \quad z \sim N(0, \epsilon^2)$$

    Posterior differential regularization with an f-divergence: KL, symmetric KL, Jensen-Shannon or squared Hellinger.
    The paper reports out-of-domain robustness on reading comprehension and inference tasks, with encoders only. At
    small noise the divergences differ by constant factors, so tune the weight for the divergence. In the published
    code epsilon is the norm of a token's noise, sqrt(D) times less per coordinate, and the symmetric KL is half of the
    one here.

    Args:
        eps: standard deviation of the noise (in the embedding's own unit, >= 0), a number or a schedule.
        weight: weight of the divergence (>= 0), a number or a schedule.
        divergence: `kl` (clean to noisy), `reverse_kl`, `symmetric_kl`, `js` or `hellinger`.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "pdr", "divergence": "hellinger"})`
    """
    check_scalar("eps", eps)
    return Strategy(AdditiveNoise(Gaussian(), Fixed(eps)), Consistency(divergence, weight))
