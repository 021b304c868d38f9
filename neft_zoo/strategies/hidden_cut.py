from neft_zoo.noise.additive import AtLayers, Layers
from neft_zoo.noise.cutoff import SpanCut
from neft_zoo.noise.schedules import Scalar, check_number
from neft_zoo.objectives.consistency import Consistency
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2106.00149", version=1)
def hidden_cut(ratio: Scalar = 0.1, weight: Scalar = 1.0, cut_weight: float = 1.0, layers: Layers = (-1,)) -> Strategy:
    r"""HiddenCut: consistent predictions with and without a span of hidden states.

    $$\mathrm{CE}(h) + a\,\mathrm{CE}(h^{cut}) + b\,\mathrm{JS}(p, p^{cut}),
    \qquad h^{cut}_t = h_t\,[t \notin \text{span}]$$

    Cutoff inside the network: one contiguous span per document is set to 0 at the input of the chosen layers. The
    paper selects spans by attention and reports gains on GLUE, mostly out of distribution; here the span is random, as
    in the paper's own baseline. The published code cuts in every layer, before the residual is added, and takes the
    span out of attention. No published result for causal models.

    Args:
        ratio: share of the document's tokens in the span (0 to 1, 1 excluded), a number or a schedule.
        weight: b, weight of the divergence (>= 0), a number or a schedule.
        cut_weight: a, weight of the loss on the cut pass (>= 0).
        layers: `all`, or a list of layer numbers (negative ones count from the end) or of fractions of the depth.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "hidden_cut", "layers": [-2]})`
    """
    check_number("cut_weight", cut_weight)
    return Strategy(AtLayers(SpanCut(ratio), layers), Consistency("js", weight, second=cut_weight))
