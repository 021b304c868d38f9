from typing import Literal

from neft_zoo.noise.cutoff import HideTokens
from neft_zoo.noise.schedules import Scalar, WarmUp
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2403.02178", version=1)
def masked_thought(p: Scalar = WarmUp(0.4, 2 / 3), by: Literal["mask", "random"] = "mask") -> Strategy:
    r"""Masked thought: hide some of the answer's tokens from the input, but keep them as targets.

    $$\tilde x_t = [\mathrm{mask}] \text{ with probability } p \text{ if } t \text{ is graded},
    \qquad \text{labels unchanged}$$

    The model has to continue a chain of thought with gaps, and so relies more on the question. For: the paper's GSM8K
    rises from 41.6 to 47.1 for LLaMA-2-7B, where NEFTune gave 40.6 to 41.3: the strongest cheap result on reasoning.
    Against: there is no evidence beyond worked solutions. Not for answers that copy names or numbers which occur
    nowhere else.

    Differs from the paper in: the paper adds a mask token to the vocabulary, whose embedding is learned. If the
    tokenizer has none, its padding token is used, whose row gets no gradient in most models (`padding_idx`) and so
    stays untrained. Add a mask token, or use `by="random"`. Special tokens are never hidden. `random` inserts a token
    of the same document, the paper one of the vocabulary.

    Args:
        p: probability that a graded token is hidden (0 to 1), a number or a schedule; the paper warms up over two
            thirds of training.
        by: `mask` inserts the tokenizer's mask token, or its padding token if it has none; `random` inserts another
            token of the document.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="masked_thought")`
    """
    return Strategy(HideTokens(p, by))
