"""Mutants that no test can kill, and the section of docs/mutants.md on the last run of `make mutants`."""

# Module, line of code, changes, and why they are not a gap. Survivors that are not listed here are gaps.
EQUIVALENT = [
    (
        "passes/hooks",
        "KEPT_LOGITS = 2**22",
        ["2 -> 3", "22 -> 23", "Pow -> Mult"],
        "on either side of the limit the numbers are the same: it only trades memory for time",
    ),
    (
        "noise/distributions",
        "def rms(self) -> float: ...",
        ["drop the decorators"],
        "the class is a protocol: its body is for the type checker",
    ),
    ("noise/batch", "key: int = 0,", ["0 -> 1"], "any fixed key is as good a default as any other"),
    (
        "noise/batch",
        "places = torch.cat([real.nonzero()[:, 0], starts.new_zeros(1)])  # a batch may be all padding",
        ["1 -> 2"],
        "what is put behind the places is read by no position that means anything",
    ),
    (
        "noise/batch",
        "tail = (positions == 0).long().flip(-1).cumprod(-1).flip(-1).bool()",
        ["drop USub"],
        "of two dimensions the last one is number 1",
    ),
]
WHY = {(module, code, change): why for module, code, changes, why in EQUIVALENT for change in changes}
HEADING = "## The last run of `make mutants`"


def section(results, limit):
    """Return the counts, a table by module, and every survivor with its reason."""
    killed = sum(result["result"] != "survived" for result in results)
    options = f' MUTANTS="--limit {limit}"' if limit else ""
    lines = [
        HEADING,
        "",
        f"Written by `make mutants{options}`"
        + (", which draws the mutants of a module with seed 0." if limit else "."),
        f"It killed {killed} of {len(results)} mutants ({killed / len(results):.0%}).",
        "",
        "| module | mutants | killed |",
        "| --- | --- | --- |",
    ]
    for module in dict.fromkeys(result["module"] for result in results):
        ends = [result["result"] != "survived" for result in results if result["module"] == module]
        lines.append(f"| `{module}` | {len(ends)} | {sum(ends)} |")
    lines += ["", "| survivor | code | change | why no test kills it |", "| --- | --- | --- | --- |"]
    for found in results:
        if found["result"] == "survived":
            why = WHY.get((found["module"], found["code"], found["change"]), "**a gap in the tests**")
            code = found["code"].replace("|", "\\|")
            lines.append(f"| `{found['module']}.py:{found['line']}` | `{code}` | {found['change']} | {why} |")
    return "\n".join(lines) + "\n"


def write(page, results, limit):
    """Write the section at the end of the page, replacing that of an earlier run."""
    kept = page.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
    page.write_text(f"{kept}\n\n{section(results, limit)}", encoding="utf-8")
