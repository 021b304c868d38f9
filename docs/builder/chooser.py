"""The chooser: from a user's case to a recipe, code and a comparison.

An answer is looked up in tables and filled into texts, here and in assets/chooser.js alike; `tables` returns them all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from neft_zoo.compare.experiment import Experiment

from .chooser_cases import (
    EPOCHS,
    GOALS,
    METHODS,
    MODELS,
    PACKINGS,
    REASONS,
    RECORDS,
    SCALED,
    Case,
    cases,
    control,
    frameworks,
    memory,
    noise_for,
    slots,
)
from .chooser_evidence import expected
from .tables import TEMPLATES


@dataclass(frozen=True)
class Answer:
    """The answer to a case: a recipe, code, one comparison, what to expect, and a free control."""

    noise: str
    why: str
    memory: str
    recipe: str
    code: str
    compare: str
    expect: str
    control: str


def fill(text: str, case: Case) -> str:
    """Return a text with its placeholders filled in."""
    for name, value in {name: value for each in slots(case).values() for name, value in each.items()}.items():
        text = text.replace(f"%{name}%", value)
    return text


@cache
def texts() -> dict[str, dict[str, str]]:
    """Return the texts with their placeholders, by the fields they depend on."""
    code = {
        f"{framework}|{method}|{packing}": _render(f"{framework}.j2", method, packing)
        for framework, method, packing in product(frameworks(), METHODS, PACKINGS)
    }
    recipes = {f"{m}|{p}": _render("yaml.j2", m, p) for m, p in product(METHODS, PACKINGS)}
    return {"code": code, "recipe": recipes, "compare": {"": _render("compare.j2", "", "")}}


def _render(name: str, method: str, packing: str) -> str:
    return TEMPLATES.get_template(f"chooser/{name}").render(method=method, is_packed=packing == "yes").strip()


def answer(case: Case, experiments: Sequence[Experiment]) -> Answer:
    """Return the answer to a case."""
    key, why = noise_for(case)
    known = texts()
    return Answer(
        noise=key,
        why=REASONS[why],
        memory=memory(case),
        recipe=fill(known["recipe"][f"{case.method}|{case.packing}"], case),
        code=fill(known["code"][f"{case.framework}|{case.method}|{case.packing}"], case),
        compare=fill(known["compare"][""], case),
        expect=expected(key, case.method, case.packing, case.goal, experiments),
        control=control(case),
    )


# The tables of the script, and the fields of a case that each depends on; `noise` is looked up first.
DEPENDS = {
    "choice": ("records", "epochs", "goal", "family"),
    "memory": ("size", "method"),
    "control": ("epochs", "method"),
    "expect": ("noise", "method", "packing", "goal"),
    "noise_slots": ("noise",),
    "model_slots": ("family", "size"),
    "rate_slots": ("size", "method"),
    "epoch_slots": ("epochs",),
    "control_slots": ("method",),
}


def tables(experiments: Sequence[Experiment]) -> dict[str, object]:
    """Return all tables of the script, by the fields they depend on."""
    made: dict[str, dict[str, object]] = {name: {} for name in DEPENDS}
    framework = next(iter(frameworks()))
    for case in (each for each in cases() if each.framework == framework):
        choice = noise_for(case)
        at = {**vars(case), "noise": choice[0]}
        keys = {name: "|".join(at[field] for field in names) for name, names in DEPENDS.items()}
        if all(keys[name] in made[name] for name in DEPENDS):
            continue
        found = {"choice": choice, "memory": memory(case), "control": control(case), **slots(case)}
        if keys["expect"] not in made["expect"]:
            found["expect"] = expected(choice[0], case.method, case.packing, case.goal, experiments)
        for name, value in found.items():
            made[name].setdefault(keys[name], value)
    models = {family: list(sizes) for family, sizes in MODELS.items()}
    return {"depends": DEPENDS, "reasons": REASONS, "texts": texts(), "models": models, **made}


LABELS = {
    "records": ("Training records", RECORDS),
    "epochs": ("Epochs", EPOCHS),
    "goal": ("What they are", GOALS),
    "family": ("Model", {name: name for name in MODELS}),
    "size": ("Size", {}),
    "method": ("Trained", METHODS),
    "packing": ("Packing", PACKINGS),
    "framework": ("With", {}),
}


def form(experiments: Sequence[Experiment]) -> str:
    """Return the chooser: fields for the script, and below them the full answer to one case, which needs no script."""
    first = Case()
    choices = {name: dict(options) for name, (_, options) in LABELS.items()}
    choices["framework"], choices["size"] = frameworks(), {size: size for size in MODELS[first.family]}
    fields_of = [
        {"name": name, "label": LABELS[name][0], "options": choices[name], "value": value}
        for name, value in vars(first).items()
    ]
    text = json.dumps(tables(experiments), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    made = TEMPLATES.get_template("chooser.html.j2").render(fields=fields_of, answer=answer(first, experiments))
    return f'{made.strip()}\n\n<script type="application/json" id="chooser-tables">{text}</script>'


# Rows for readers without JavaScript, and for those who already know their case.
LINES = (
    Case(records="few", method="full"),
    Case(method="full", size="8B"),
    Case(method="lora"),
    Case(),
    Case(method="qlora", packing="yes"),
    Case(records="many", epochs="1", method="full"),
    Case(goal="reasoning", method="lora"),
    Case(family="Gemma 2", size="9B", method="lora"),
)


def lines() -> str:
    """Return the table of default answers, one row per case."""
    rows = ["| you have | noise | first compare with |", "| --- | --- | --- |"]
    for case in LINES:
        given = [f"{RECORDS[case.records]} records", *([GOALS[case.goal]] if case.goal != "instructions" else [])]
        given += [f"{case.epochs} epoch{'s' * (case.epochs != '1')}", METHODS[case.method]]
        given += ["packed"] if case.packing == "yes" else []
        words = [", ".join([*given, *([case.family] if case.family in SCALED else [])])]
        values = {name: value for each in slots(case).values() for name, value in each.items()}
        words.append(f"`{values['NOISE_FLAG']}`")
        shares = values["LENGTHS"].removesuffix(",1").replace(",", " and ")
        words.append(f"plain training for {shares} of the steps; `{values['CONTROL']}`")
        rows.append(f"| {' | '.join(words)} |")
    return "\n".join(rows)
