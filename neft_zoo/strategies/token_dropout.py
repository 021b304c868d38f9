from neft_zoo.noise.cutoff import TokenCut
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/1511.06349", version=1)
def token_dropout(p: Scalar = 0.1) -> Strategy:
    r"""Word dropout: set the embeddings of whole tokens to 0.

    $$\tilde e_t = e_t\,[u_t \ge p], \qquad u_t \sim U(0, 1)$$

    The other embeddings are not rescaled, and the labels are unchanged, so the model must use the wider context. A
    document's first token and special tokens are never dropped. Made to keep a decoder from relying on the last few
    words alone; we know of no result for instruction tuning. A large p harms tasks in which every token counts.

    Differs from the paper in: the paper puts an unknown word in the place of a dropped one, and spares none.

    Args:
        p: probability that a token is dropped (0 to 1, 1 excluded), a number or a schedule.

    Example:
        `SFTTrainer(model, train_dataset=data, noise="token_dropout")`
    """
    return Strategy(TokenCut(p))
