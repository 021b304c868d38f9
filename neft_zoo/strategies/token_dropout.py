from neft_zoo.noise.cutoff import TokenCut
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1511.06349", version=1)
def token_dropout(p: Scalar = 0.1) -> Strategy:
    r"""Word dropout: whole tokens vanish from the input.

    $$\tilde e_t = e_t\,[u_t \ge p], \qquad u_t \sim U(0, 1)$$

    The embedding of a chosen token is 0, nothing is rescaled, and the labels stay, so the model must use the wider
    context. A document's first token and special tokens are never dropped. Made to keep a decoder from leaning on
    the last few words alone; we know of no result for instruction tuning. With large p it harms tasks where every
    token counts.

    Args:
        p: probability that a token is dropped (0 to 1, 1 excluded), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="token_dropout")`
    """
    return Strategy(TokenCut(p))
