from neft_zoo.noise.data_dependent import MetricLaplace
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1910.08902", version=1)
def dx_laplace(eta: Scalar = 10000.0) -> Strategy:
    r"""The noise of metric differential privacy: a random direction with a Gamma length, per token.

    $$\tilde e_t = e_t + l_t v_t, \qquad v_t \in S^{D-1}, \quad l_t \sim \Gamma(D, 1/\eta)$$

    The mean norm per token is D / eta, so eta has a meaning only together with the width: eta = 10 at 4,096 features
    gives noise of norm 410, hundreds of times a token's embedding, which is why values copied from papers destroy
    training. Use it to train a model for inputs that will be perturbed in this way.

    Differs from the paper in: the paper perturbs the text itself, at inference too, and replaces every noisy vector by
    the nearest word. Here only training sees the noise, on the embeddings, so there is no privacy guarantee.

    Args:
        eta: privacy parameter (inverse length, > 0), a number or a schedule; the mean norm of the noise is D / eta.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "dx_laplace", "eta": 20000})`
    """
    return Strategy(MetricLaplace(eta))
