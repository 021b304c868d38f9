"""The divergence of two predictions in chunks, against the naive one that holds all logits.

python tests/benchmarks/divergence.py               # symmetric KL with gradients: time, memory, equality
python tests/benchmarks/divergence.py --step [--words 32768 --naive]    # peak memory of a step of r3f
python tests/benchmarks/divergence.py --growth growth.json      # over the vocabulary
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from cost import PLAIN, Stepper
from ratios import DEVICE, interval, machine, paired, peak, seconds, table
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.step import Step

WORDS = 131072
VOCABULARIES = [2**i for i in range(12, 19)]


def sides(tokens: int, width: int, words: int, trained: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the naive and the chunked symmetric KL with gradients; each returns its value and all gradients."""
    torch.manual_seed(0)
    head = nn.Linear(width, words, bias=False, device=DEVICE)
    head.requires_grad_(trained)
    one = torch.randn(1, tokens + 1, width, device=DEVICE, requires_grad=True)
    two = (one.detach() + 0.1 * torch.randn_like(one)).requires_grad_()
    config = SimpleNamespace()
    config.get_text_config = lambda decoder: config
    model: Any = SimpleNamespace(get_input_embeddings=None, get_output_embeddings=lambda: head, config=config)
    batch: Any = SimpleNamespace(graded=torch.ones(1, tokens + 1, dtype=torch.bool, device=DEVICE))
    hooks: Any = SimpleNamespace(model=model, outputs=SimpleNamespace(task="next token", shift=1))
    step = Step(hooks, batch, lambda ids: None)
    passes: list[Any] = [SimpleNamespace(hidden=each, logits=None) for each in (one, two)]

    def backward(value: torch.Tensor) -> list[torch.Tensor]:
        leaves = [one, two, *([head.weight] if trained else [])]
        return [value.detach(), *torch.autograd.grad(value, leaves)]

    def naive() -> list[torch.Tensor]:
        return backward(textbook(head(one[0, :-1]), head(two[0, :-1])).mean())

    return naive, lambda: backward(step.divergence("symmetric_kl", passes[0], passes[1]))


def textbook(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    log_p, log_q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1) + (log_q.exp() * (log_q - log_p)).sum(-1)


def compare(tokens: int, width: int, words: int, rounds: int) -> None:
    rows = [("head", "time", "95 % interval", "extra memory", "largest relative difference")]
    for trained in (True, False):
        naive, chunked = sides(tokens, width, words, trained)
        pairs = zip(naive(), chunked(), strict=True)
        apart = max(((a - b).norm() / a.norm()).item() for a, b in pairs)
        ratios = paired(naive, {"chunked": chunked}, rounds)["chunked"]
        memory = peak(chunked) / peak(naive)
        low, high = interval(ratios)
        cells = (f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f}", f"{memory:.3f}", f"{apart:.1e}")
        rows.append(("trained" if trained else "frozen", *cells))
    print(f"symmetric KL, {tokens} tokens, width {width}, {words} words, {machine()}\n")
    table(rows)


def all_logits(
    self: Step, losses: Any, weight: Any, name: Any, first: Any, second: Any, constant: bool = False
) -> Any:
    """Return the clean loss and the symmetric KL as one would write it first."""
    head = LanguageHead(self.hooks.model)
    logits = [head(done.hidden)[:, :-1][self.graded] for done in (first, second)]
    return first.loss + weight * self.per_token(textbook(*logits).sum())


def of_steps(words: int, naive: bool) -> None:
    """Print the peak memory of one step on 2,048 tokens."""
    shape = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4)
    config = LlamaConfig(vocab_size=words, tie_word_embeddings=True, **shape)

    def used(noise: str) -> int:
        torch.manual_seed(0)
        return peak(Stepper(noise, LlamaForCausalLM(config), rows=4, tokens=513))

    sizes = {"plain TRL": used(PLAIN), "r3f": used("r3f")}
    if naive:
        with mock.patch.object(Step, "with_divergence", all_logits):
            sizes["r3f with all logits"] = used("r3f")
    rows = [("step", "peak memory", "MiB")]
    for name, size in sizes.items():
        rows.append((name, f"{size / sizes['plain TRL']:.2f}", f"{size / 2**20:.0f}"))
    print(f"a step on 2,048 graded tokens, {words} words, {machine()}\n")
    table(rows)


def growth(rounds: int) -> dict[str, dict[str, float]]:
    found = {}
    for words in VOCABULARIES:
        run = sides(256, 1024, words, True)[1]
        run()
        found[words] = {"seconds": statistics.median(seconds(run) for _ in range(rounds)), "bytes": peak(run)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", action="store_true", help="measure the memory of a training step instead")
    parser.add_argument("--words", type=int, default=WORDS, help="vocabulary of --step")
    parser.add_argument("--naive", action="store_true", help="measure --step with all logits too: about 80 KiB a word")
    parser.add_argument("--growth", type=Path, metavar="FILE", help="measure growth instead, into a JSON file")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.step:
        of_steps(options.words, options.naive)
    elif options.growth:
        options.growth.parent.mkdir(parents=True, exist_ok=True)
        options.growth.write_text(json.dumps({**machine(), "words": growth(options.rounds)}, indent=2) + "\n")
    else:
        compare(2048, 256, 32000, options.rounds)


if __name__ == "__main__":
    main()
