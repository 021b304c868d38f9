"""Measurements of a framework's training: noise per document, padding, evaluation, logs and weights.

Runs in the framework's environment. Document boundaries are not read from masks or positions, which are under test:
every document of the shipped data begins with the shipped model's user token, and padding is its padding token.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules import module as every_module

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "recipes" / "quickstart" / "model"
DATA = ROOT / "recipes" / "quickstart" / "data"
ALPHA, WIDTH, USER, PAD = 5.0, 192, "<|user|>", 1
NOISES = ("plain", "none", "neft_uniform", "symnoise")
STEPS, RECORDS = 4, 96


class Run(NamedTuple):
    """One of a framework's runs: its settings, and an empty folder."""

    layout: str
    tuning: str
    noise: str
    options: dict[str, Any]
    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "run"


def runs(layouts: Mapping[str, Mapping[str, Any]], tunings: Mapping[str, Mapping[str, Any]]) -> Iterator[Run]:
    """Yield a run for every layout, tuning and noise, with the options of the first two."""
    for layout, of_layout in layouts.items():
        for tuning, of_tuning in tunings.items():
            for noise in NOISES:
                with tempfile.TemporaryDirectory() as name:
                    yield Run(layout, tuning, noise, {**of_layout, **of_tuning}, Path(name))


class Recorder:
    """Compares, in every model call, the input of the first layer with the output of the embedding."""

    def __init__(self) -> None:
        vocabulary = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        self.user = next(each["id"] for each in vocabulary if each["content"] == USER)
        self.calls, self._seen = [], None

    def __enter__(self) -> Recorder:
        # Global hooks run before those of a module, so this sees the embedding before a hook adds noise.
        self._handles = [
            every_module.register_module_forward_hook(self._embedded),
            every_module.register_module_forward_pre_hook(self._reached),
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _embedded(self, module: nn.Module, args: tuple, output: object) -> None:
        if isinstance(module, nn.Embedding) and isinstance(output, torch.Tensor):
            self._seen = args[0].detach(), output.detach().clone()

    def _reached(self, module: nn.Module, args: tuple) -> None:
        if self._seen is None or not type(module).__name__.endswith("DecoderLayer"):
            return
        (ids, clean), self._seen = self._seen, None
        noise = (args[0].detach() - clean).float()
        self.calls.append((module.training and torch.is_grad_enabled(), ids, noise))

    def measures(self) -> dict[str, object]:
        """Return the rms over the paper's for every document, and the largest noise where there must be none."""
        trained = [(ids, noise) for training, ids, noise in self.calls if training]
        clean = [noise.abs().max().item() for training, _, noise in self.calls if not training]
        ratios = [ratio for ids, noise in trained for ratio in self._ratios(ids, noise)]
        padding = [noise[ids == PAD].abs().max().item() for ids, noise in trained if (ids == PAD).any()]
        return {
            "passes": len(trained),
            "documents": len(ratios),
            "most_documents_in_a_row": max((int((ids == self.user).sum(-1).max()) for ids, _ in trained), default=0),
            "ratios": [min(ratios, default=0.0), max(ratios, default=0.0)],
            "paddings": len(padding),
            "padding": max(padding, default=0.0),
            "evaluations": len(clean),
            "evaluation": max(clean, default=0.0),
        }

    def _ratios(self, ids: torch.Tensor, noise: torch.Tensor) -> list[float]:
        ratios = []
        for row, added in zip(ids, noise, strict=True):
            document = (row == self.user).long().cumsum(-1) * (row != PAD)
            for number in range(1, int(document.max()) + 1):
                inside = added[document == number]
                paper = ALPHA / (3 * len(inside) * WIDTH) ** 0.5
                ratios.append((inside.pow(2).mean().sqrt() / paper).item())
        return ratios


def messages(split: str, count: int, folder: Path) -> Path:
    """Write records of the shipped data as chat messages, which every framework reads."""
    lines = (DATA / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    records = [json.loads(line) for line in lines]
    path = folder / f"{split}.jsonl"
    chats = [json.dumps({"messages": each["prompt"] + each["completion"]}) for each in records]
    path.write_text("\n".join(chats) + "\n", encoding="utf-8")
    return path


def digest(folder: Path) -> str:
    """Return the hash of the weights that a run saved."""
    file = next(path for name in ("adapter_model", "model") for path in sorted(folder.rglob(f"{name}.safetensors")))
    total = hashlib.sha256()
    for name, weight in sorted(load_file(file).items()):
        total.update(name.encode() + weight.float().numpy().tobytes())
    return total.hexdigest()


def logged(folder: Path) -> list[dict[str, float]]:
    """Return the lines logged by a run."""
    newest = max(folder.rglob("trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text(encoding="utf-8"))["log_history"]


def result(run: Run, recorder: Recorder) -> None:
    """Print the measurements of a run as a line of JSON."""
    told = {"layout": run.layout, "tuning": run.tuning, "noise": run.noise, **recorder.measures()}
    written = any(run.output.rglob("noise.json"))
    told |= {"weights": digest(run.output), "log": logged(run.output), "noise.json": written}
    print("RESULT " + json.dumps(told), flush=True)
