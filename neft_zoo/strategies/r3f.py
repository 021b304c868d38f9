from typing import Literal

from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian, Uniform
from neft_zoo.noise.scales import Fixed, Relative
from neft_zoo.noise.schedules import Scalar, check_scalar
from neft_zoo.objectives.consistency import Consistency
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2008.03156", version=1)
def r3f(
    eps: Scalar = 1e-5, weight: Scalar = 1.0, what: Literal["uniform", "gaussian"] = "uniform", relative: bool = False
) -> Strategy:
    r"""R3F: consistent predictions under tiny noise on the embeddings.

    $$\mathrm{CE}(e) + \lambda\,[\mathrm{KL}(p \Vert q) + \mathrm{KL}(q \Vert p)], \qquad q \text{ from } e + z,
    \quad z \sim U[-\epsilon, \epsilon]$$

    The paper reports more stable fine-tuning of encoders and of BART, against representational collapse; we know of no
    result for large causal models. The divergence is averaged over graded tokens, not summed over padding too as in
    the published code, so weights do not carry over from it. An eps of 1e-5 vanishes in bf16: use `relative`, a
    fraction of each token's rms.

    Args:
        eps: size of the noise (in the embedding's own unit, or a fraction of its rms; >= 0), a number or a
            schedule.
        weight: weight of the divergence (>= 0), a number or a schedule.
        what: the distribution.
        relative: read `eps` as a fraction of the token's own rms.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "r3f", "eps": 0.1, "relative": True})`
    """
    check_scalar("eps", eps)
    return Strategy(
        AdditiveNoise(Uniform() if what == "uniform" else Gaussian(), Relative(eps) if relative else Fixed(eps)),
        Consistency("symmetric_kl", weight),
    )
