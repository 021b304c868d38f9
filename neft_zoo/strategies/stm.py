from neft_zoo.objectives.token_masking import LikelyTokens
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2501.14315", version=1)
def stm(threshold: float = 2.5) -> Strategy:
    r"""Selective token masking: do not grade tokens that are unlikely under the starting model.

    $$\mathrm{CE} \text{ over } \{\, t : \exp(-\log p_0(y_t \mid y_{<t})) \le \tau \,\},
    \qquad p_0 \text{ the model before fine-tuning}$$

    The remaining targets are close to what the model would have generated, as in training on its own outputs: it
    forgets less of other tasks. For: with Gemma 2 2B, Llama 3 8B and three other models, trained on code and
    mathematics, the authors report that other tasks suffer as little as from training on the model's own outputs
    (NeurIPS 2025). Against: a reviewer missed an analysis of what answers lose with those tokens, since words and
    facts that are new to the model are not learned; we know of no replication. One pass, and one forward pass of the
    starting model without gradients. Needs LoRA or another adapter, beside a base that stays as it is (no PiSSA, no
    trained biases): the model without it is the starting model.

    Differs from the paper in: perplexities are recomputed in every step instead of once into a file, which selects the
    same tokens and costs a third of a step; a micro-batch whose graded tokens are all masked has a loss of 0. With
    several devices or micro-batches, each averages over its own tokens. The [published
    code](https://github.com/appier-research/robust-llm-finetunes) has two variants that also need a fine-tuned model,
    and a random control with the same draw in all records; neither is included.

    Args:
        threshold: tau, the largest perplexity of a graded token (>= 1); 2.5 is the published code's.

    Example:
        `SFTTrainer(model, train_dataset=data, peft_config=lora, noise="stm")`
    """
    return Strategy(None, LikelyTokens(threshold))
