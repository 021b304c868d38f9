from neft_zoo.passes.weight_dropout import LoraMatrixDropout
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2404.09610", version=1)
def lora_matrix_dropout(p: float = 0.5) -> Strategy:
    r"""LoRA Dropout: drop random inputs of A and outputs of B from the adapter's matrices.

    $$W + \frac{\alpha}{r}\, \mathrm{diag}(m_B)\, B A\, \mathrm{diag}(m_A), \qquad m \in \{0, \tfrac{1}{1 - p}\},
    \quad P(m = 0) = p$$

    The adapter is randomly sparse, and keeps its rank. PEFT's `lora_dropout` also drops inputs, but draws per token;
    here an input or an output, with the adapter's contribution to it, is dropped for a whole step. The paper reports
    gains on GLUE, SQuAD and instruction tuning, and better calibration; we know of no replication.

    Differs from the paper in: one draw per optimizer step, while the paper averages the losses of several; no ensemble
    of draws at test time, where the full adapter is used. The paper's p, and whether it divides by 1 - p as here,
    could not be checked.

    Args:
        p: probability that an input of A, or an output of B, is dropped (0 to 1, 1 excluded).

    Example:
        `SFTTrainer(model, train_dataset=data, peft_config=lora, noise="lora_matrix_dropout")`
    """
    return Strategy(None, weights=LoraMatrixDropout(p))
