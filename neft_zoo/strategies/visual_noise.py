from neft_zoo.noise.additive import AdditiveNoise, AtPlaceholders
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2405.20081", version=1)
def visual_noise(size: Scalar = 0.5) -> Strategy:
    r"""NoiseBoost: noise on the projected image tokens of a vision-language model, but not on its text.

    $$\tilde v_t = v_t + s\, z_t, \qquad z_t \sim N(0, 1), \quad t \text{ an image token behind the projector}$$

    Made against invented details in long descriptions: a model that cannot rely on any single image token should look
    at all of them rather than at its own words. For: the authors report dense captions that are 8.1 % more accurate in
    human evaluation, and with unlabelled images the results of twice the labelled data. Against: we know of no
    replication, and no code is public ([the repository](https://github.com/KaiWU5/NoiseBoost) holds only its
    announcement). The size is absolute, and projectors differ in scale: check `noise/snr_db` first.

    Differs from the paper in: supervised fine-tuning only, without its noise on the preferred answers of DPO and
    without its consistency loss on unlabelled images; video and sound get noise like images. Image features that a
    model adds again at later layers (Qwen3-VL) stay clean there. Refused for text models, and for models that read
    images by cross-attention (Mllama).

    Args:
        size: s, of the noise per coordinate (in the unit of the projected features, >= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=images, processing_class=processor, noise="visual_noise")`
    """
    return Strategy(AtPlaceholders(AdditiveNoise(Gaussian(), Fixed(size))))
