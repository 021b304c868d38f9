"""Made-up results for the tests of the site: what they say is chosen, so that a page's sentences can be checked."""

import hashlib
import sys
from pathlib import Path

import numpy as np

from neft_zoo import make
from neft_zoo.compare import results
from neft_zoo.compare.records import RunRecord

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

# What a row does to the loss at the end, the loss at the best point and the train loss, and how much it repeats.
EFFECTS = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "neft_uniform 5": (-0.08, -0.02, 0.2, -0.01),
    "neft_uniform 10": (-0.12, 0.01, 0.6, -0.02),
    "neft_gaussian 5": (-0.08, -0.02, 0.2, -0.01),
    "symnoise": (-0.05, 0.02, 0.3, 0.0),
    "label_smoothing": (-0.03, -0.01, 0.1, 0.0),
    "lat": None,
}


def noise_of(name):
    kind, alpha, *plain = [*name.split(), ""]
    if kind == "label_smoothing":
        return make("none")
    match = {"match_rms": True} if kind == "neft_gaussian" and plain[:1] != ["plain"] else {}
    return make(kind, **({"alpha": float(alpha)} if alpha else {}), **match)


def record(name, seed, effect, matched=False, answers=True):
    """Return a run as the runner writes it; one without effect failed."""
    strategy = noise_of(name)
    draw = np.random.default_rng([seed, *name.encode()]).normal(0, 0.002, 5)
    config = {"learning_rate": 1e-3, "dataset_name": "made/up", **({"compute_matched": True} if matched else {})}
    control = name if name == "label_smoothing" else ""
    made = {"format": 1, "key": f"{name}{seed}", "recipe": {"name": "r", "hash": f"h{matched}"}, "config": config}
    made |= {"noise": strategy.to_dict(), "version": 1, "control": control, "overrides": {}, "row": f"row {name}"}
    made |= {
        "seed": seed,
        "passes": strategy.objective.passes,
        "share": 1.0,
        "versions": {"torch": "2"},
        "device": "cpu",
    }
    if effect is None:
        return made | {"status": "failed", "error": "layers must be below 2, got 4.", "history": []}
    end, best, train, overlap = effect
    base = 4.6 + 0.02 * seed
    losses = [{"train_loss": 2.9 + train / 2 + draw[2], "test_loss": base - 0.1 + best + draw[1]}]
    losses += [{"train_loss": 2.3 + train + draw[3], "test_loss": base + end + draw[0]}]
    points = [{"step": 5 + 5 * i, "epoch": 1.0 + i, **loss} for i, loss in enumerate(losses)]
    made |= {"status": "ok", "history": points, "end": points[1], "best": points[0], "steps": 10, "tokens": 1000}
    made |= {"cpu_s": 19.0, "wall_s": 20.0 * strategy.objective.passes + draw[4], "peak_memory_mb": 900.0 + draw[4]}
    if answers:
        evaluation = {"train_rouge_l": 0.36 + overlap + draw[0], "train_bleu": 0.1 + overlap / 2}
        evaluation |= {"test_rouge_l": 0.2, "test_accuracy": 0.3 - end / 10 + draw[1], "test_words": 40 + draw[2]}
        made["evaluation"] = evaluation | {
            "test_repetition_2": 0.05 + draw[3] / 10,
            "test_log_diversity": None,
            "odd_thing": 1.5 + draw[4],
        }
    return made


def write(folder, seeds=3, effects=EFFECTS, **changes):
    """Write an experiment into a folder."""
    folder.mkdir(parents=True)
    for name, effect in effects.items():
        for seed in range(seeds):
            made = record(name, seed, effect, **changes)
            row = hashlib.sha256(name.encode()).hexdigest()
            path = results.path_of(folder, name.split()[0], row, seed)
            results.write(path, RunRecord.from_dict(made))
    return folder


def committed(folder):
    """Write what the site's tests are built from: two experiments and one that cannot be shown."""
    write(folder / "made-up")
    write(folder / "made-up-compute", effects={key: EFFECTS[key] for key in ("none", "symnoise")}, matched=True)
    write(folder / "half", effects={"symnoise": EFFECTS["symnoise"]}, matched=True)
    return folder
