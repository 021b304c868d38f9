from neft_zoo.noise.schedules import Scalar
from neft_zoo.objectives.consistency import DropoutConsistency
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2106.14448", version=1)
def r_drop(weight: Scalar = 1.0) -> Strategy:
    r"""R-Drop: consistent predictions of two passes with different dropout masks.

    $$\frac{1}{2}(\mathrm{CE}_1 + \mathrm{CE}_2)
    + \frac{a}{2}\,[\mathrm{KL}(p_1 \Vert p_2) + \mathrm{KL}(p_2 \Vert p_1)]$$

    The paper reports gains on translation, summarization and classification at twice the cost, and nothing on large
    language models. Most of those have no dropout, which makes both passes the same: this is refused. With LoRA, set
    `lora_dropout`.

    Differs from the paper in: its formula adds the two losses and halves the sum of the divergences, so its alpha is
    2a here (the default is its alpha of 2); the authors' code averages the losses, as here. The divergence is averaged
    over graded tokens.

    Args:
        weight: a, half the alpha of the paper (>= 0), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="r_drop")`
    """
    return Strategy(None, DropoutConsistency(weight))
