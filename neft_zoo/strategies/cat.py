from neft_zoo.noise.schedules import Scalar
from neft_zoo.noise.tokens import Role, Tokens
from neft_zoo.objectives.adversarial import Ascent
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2405.15589", version=2)
def cat(eps: Scalar = 0.05, steps: int = 10, size: Scalar = 0.01, where: Role = "prompt") -> Strategy:
    r"""Continuous adversarial training: sign ascent on the embeddings, in a ball relative to their norm.

    $$d_t \leftarrow \Pi_{\lVert d_t \rVert \le \epsilon \bar n}(d_t + \eta\,\bar n\,\mathrm{sign}(g_t) / \sqrt
    D), \qquad \bar n = \text{mean of the document's } \lVert e_t \rVert$$

    Made to harden models against jailbreaks, at a fraction of the cost of discrete attacks: all tokens of the
    instruction are perturbed at once. Radius and step are fractions of the document's mean embedding norm, so values
    carry over between models. It has not been compared as a regularizer for ordinary fine-tuning. K + 1 passes: 11 by
    default, so start with fewer steps.

    Differs from the paper in: the mean norm is over the document's embeddings, while the [published
    code](https://github.com/sophie-xhonneux/Continuous-AdvTrain) takes it once over the whole table; the step is
    relative too, while that code's is absolute (1e-4 per coordinate); the last perturbation is trained on, not the
    best one; the paper's losses (towards refusals, away from harmful answers) and its clean data are not included.
    Version 1 also perturbed the answer (`where="real"`).

    Args:
        eps: largest norm of a token's perturbation over the mean embedding norm (dimensionless, >= 0), a number or a
            schedule.
        steps: K (>= 0).
        size: norm of a token's step over the mean embedding norm (dimensionless, >= 0), a number or a schedule.
        where: the tokens that are perturbed: `prompt`, `completion` (the graded tokens), or `real` for both.

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "cat", "steps": 3})`
    """
    return Strategy(None, Ascent(Ball(eps, "token", "sign", relative=True, where=Tokens(where)), steps, size))
