from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength
from neft_zoo.noise.schedules import Linear, Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper=None, version=1)
def neft_scheduled(alpha: Scalar = Linear(10.0, 0.0)) -> Strategy:
    r"""NEFTune whose strength changes during training, by default from 10 down to 0.

    $$\tilde e = e + \frac{\alpha(t)}{\sqrt{n D}}\, z, \qquad z \sim U[-1, 1]$$

    t is the fraction of training done, so a recipe keeps its meaning when training gets longer. No paper anneals
    alpha; the idea is to explore early and to finish on clean embeddings, as used at inference. In any other entry
    too, a number may be a schedule.

    Args:
        alpha: a schedule (linear, cosine, warmup, window) or a number (dimensionless, >= 0).

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "neft_scheduled",
        "alpha": {"schedule": "cosine", "start": 15, "end": 0}})`
    """
    return Strategy(AdditiveNoise(Uniform(), ByLength(alpha)))
