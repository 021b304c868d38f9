from neft_zoo.noise.cutoff import SpanCut
from neft_zoo.noise.schedules import Scalar, check_number
from neft_zoo.objectives.consistency import Consistency
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2009.13818", version=1)
def cutoff_span(ratio: Scalar = 0.1, weight: Scalar = 1.0, cut_weight: float = 1.0) -> Strategy:
    r"""Cutoff of spans: consistent predictions with and without a random span.

    $$\mathrm{CE}(e) + a\,\mathrm{CE}(e^{cut}) + b\,\mathrm{JS}(p, p^{cut}),
    \qquad e^{cut}_t = e_t\,[t \notin \text{span of } r n \text{ tokens}]$$

    The paper reports gains on GLUE and on translation over back-translation and adversarial training, at less cost; we
    know of no result for causal language models. Not for data in which a missing clause changes the question. The
    original loss is kept, and the Jensen-Shannon divergence is between the two predictions at graded tokens; the
    published code differs in both. There the span also gets no attention. Twice the cost of a step.

    Args:
        ratio: share of the tokens in the span (0 to 1, 1 excluded), a number or a schedule.
        weight: b, weight of the divergence (>= 0), a number or a schedule.
        cut_weight: a, weight of the loss on the cut input (>= 0).

    Example:
        `SFTTrainer(model, train_dataset=data, noise="cutoff_span")`
    """
    check_number("cut_weight", cut_weight)
    return Strategy(SpanCut(ratio), Consistency("js", weight, second=cut_weight))
