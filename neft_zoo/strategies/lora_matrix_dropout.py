from neft_zoo.passes.weight_dropout import LoraMatrixDropout
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2404.09610", version=1)
def lora_matrix_dropout(p: float = 0.5) -> Strategy:
    r"""LoRA Dropout: inputs of A and outputs of B are dropped from the adapter's matrices.

    $$W + \frac{\alpha}{r}\, \mathrm{diag}(m_B)\, B A\, \mathrm{diag}(m_A), \qquad m \in \{0, \tfrac{1}{1 - p}\},
    \quad P(m = 0) = p$$

    An adapter that is sparse by chance, and keeps its rank. `lora_dropout` of PEFT drops inputs too, one draw per
    token; here an input or an output is gone for a whole step, and what the adapter adds to it with it. The paper
    reports gains on GLUE, SQuAD and instruction tuning, and better calibration; we know of no repetition by others.

    Differs from the paper in: one draw per optimizer step, where the paper averages the losses of several; no ensemble
    of draws at test time, where the adapter is used whole. Whether the paper divides what is left by 1 - p, as here,
    and its p could not be checked for this page.

    Args:
        p: probability that an input of A, or an output of B, is dropped (0 to 1, 1 excluded).

    Example:
        `SFTTrainer(model, train_dataset=data, peft_config=lora, noise="lora_matrix_dropout")`
    """
    return Strategy(None, weights=LoraMatrixDropout(p))
