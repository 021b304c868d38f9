from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.scales import ByLength, Length, Space
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import register
from neft_zoo.registry.strategy import Strategy


@register(paper="https://arxiv.org/abs/2310.05914", version=1)
def neft_uniform(alpha: Scalar = 5.0, length: Length = "document", space: Space = "scaled") -> Strategy:
    r"""NEFTune: uniform noise on every embedding, with the same expected norm for every document.

    $$\tilde e = e + \frac{\alpha}{\sqrt{n D}}\, z, \qquad z \sim U[-1, 1]$$

    where n is the number of real tokens of the document and D the width. For: LLaMA-2-7B on Alpaca went from 29.79 to
    64.69 on AlpacaEval (judged by GPT-4), with answers nearly three times as long; on seven other instruction sets
    another team saw six gains (Dolly: 30.8 to 38.3) and one loss (LIMA: 32.9 to 30.8). Against: with length
    controlled, the public leaderboard has 26.29 without and 31.61 with it for the LLaMA-1 model; on GSM8K a third team
    had 41.6 without and 41.3 with it. It delays overfitting more than it improves the best checkpoint, so it is most
    useful when training on a small data set for several epochs.

    Args:
        alpha: strength (dimensionless, >= 0), a number or a schedule; the paper chose from 5, 10 and 15.
        length: what n counts: `document` as in the paper's experiments, or `padded`, the width of the batch, as in
            transformers' `neftune_noise_alpha`.
        space: what the noise is added to: `scaled`, the output of the embedding module, as in transformers, or `raw`,
            the table itself. They differ if the module multiplies by a factor (Gemma: sqrt(D), so that `scaled` noise
            is sqrt(D) times weaker there than in Llama).

    Example:
        `SFTTrainer(model, train_dataset=data, noise={"name": "neft_uniform", "alpha": 10})`
    """
    return Strategy(AdditiveNoise(Uniform(), ByLength(alpha, length, space)))
