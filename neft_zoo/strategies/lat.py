from neft_zoo.noise.additive import AdditiveNoise, AtLayers, Layers
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.adversarial import Ascent
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2403.05030", version=1)
def lat(eps: Scalar = 6.0, steps: int = 16, size: Scalar = 1.0, layers: Layers = (0.125,)) -> Strategy:
    r"""Latent adversarial training: gradient ascent on the hidden states of chosen layers.

    $$h_l \leftarrow h_l + d, \qquad \max_{\lVert d_t \rVert \le \epsilon} \mathrm{CE}$$

    The perturbation is added at a layer's input and clipped per token. Made to remove unwanted behaviour that survives
    fine-tuning, where it worked better than attacks on the input; not meant to improve accuracy. Against: it
    concentrates the refusal of LLaMA-2-7B-chat in two directions (75 % of the variance), so that ablating the model's
    own refusal vectors removes it more easily than after plain training or attacks on the embeddings, although the
    vectors of other models do so less ([2504.18872](https://arxiv.org/abs/2504.18872)). K + 1 passes: 17 by default,
    so start with fewer steps.

    eps is an absolute length, meant for hidden states: in SmolLM2-135M these have norms of 40 and more, but embeddings
    of 3.

    Differs from the paper in: the layer is a fraction of the depth, so that it exists in every model (an eighth is
    layer 4 of LLaMA-2-7B, and the second layer of four); the perturbation starts at 0 and every token's step has the
    same length; only the trainer's data are used, while the paper adds clean passes on other text. The published code
    clips and normalizes over a whole sequence, in units of the activations' standard deviation, and attacks with
    dropout off.

    Args:
        eps: largest norm of a token's perturbation (in the hidden states' unit, >= 0), a number or a schedule.
        steps: K (>= 0).
        size: length of a token's step (>= 0), a number or a schedule.
        layers: `all`, or a list of layer numbers (negative ones count from the end) or of fractions of the depth.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "lat", "steps": 4, "layers": [8]})`
    """
    return Strategy(AtLayers(AdditiveNoise(Gaussian(), Fixed(0.0)), layers), Ascent(Ball(eps, "token"), steps, size))
