"""Mutation testing: change one place of a module at a time, in a copy, and check that its tests fail.

With --mistakes, apply the mistakes in mistakes.py instead: the test of each one must fail.
"""

import argparse
import ast
import copy
import gc
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import survivors
from mistakes import MISTAKES, put_in

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
PASSED, FAILED = 0, 1
TRAINERS = [f"trl.trainer.{kind}_trainer" for kind in ("sft", "dpo", "kto", "reward", "grpo", "rloo")]
HEAVY = "pytest hypothesis jaxtyping scipy.stats peft trl.scripts.utils transformers.models.llama.modeling_llama"
CONTEXT.set_forkserver_preload(HEAVY.split() + TRAINERS)
TESTS = {
    "noise/batch": "noise/test_batch noise/test_parts strategies/test_oracles noise/test_cutoff",
    "noise/documents": "noise/test_documents noise/test_batch noise/test_parts",
    "noise/distributions": "noise/test_parts strategies/test_oracles",
    "noise/scales": "noise/test_parts strategies/test_oracles registry/test_registry",
    "noise/tokens": "noise/test_parts strategies/test_oracles training/test_loop",
    "noise/additive": "noise/test_parts strategies/test_oracles passes/test_hooks",
    "passes/call_reader": "passes/test_call_reader passes/test_hooks training/test_loop",
    "passes/hooks": "passes/test_hooks training/test_loop",
    "objectives/base": "objectives/test_objectives registry/test_registry",
    "objectives/simple": "noise/test_parts objectives/test_objectives noise/test_mixup registry/test_registry",
    "objectives/consistency": "noise/test_parts objectives/test_objectives registry/test_registry",
    "registry/entries": "registry/test_registry noise/test_parts",
    "registry/strategy": "registry/test_registry noise/test_parts",
    "training/provenance": "training/test_provenance",
}
PAIRS = "Add Sub, Sub Add, Mult Div, Div Mult, FloorDiv Mult, Pow Mult, Mod Mult, BitAnd BitOr, BitOr BitAnd, And Or, "
PAIRS += "Or And, Lt LtE, LtE Lt, Gt GtE, GtE Gt, Eq NotEq, NotEq Eq, Is IsNot, IsNot Is, In NotIn, NotIn In"
SWAPS = {getattr(ast, old): getattr(ast, new) for old, new in map(str.split, PAIRS.split(","))}


def changes_of(node):
    """Yield possible changes of a node: a description, and a function that changes it in place."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} -> {new.__name__}", lambda n: setattr(n, "op", new())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        swap = SWAPS[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {swap.__name__}", lambda n: n.ops.__setitem__(0, swap())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"drop {type(node.op).__name__}", lambda n: setattr(n, "op", ast.UAdd() if is_minus(n) else Twice())
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value!r} -> {value!r}", lambda n: setattr(n, "value", value)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "negate the condition", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.Return) and not (node.value is None or is_none(node.value)):
        yield "return None", lambda n: setattr(n, "value", ast.Constant(None))
    if isinstance(node, ast.FunctionDef) and node.decorator_list:
        yield "drop the decorators", lambda n: n.decorator_list.clear()


def is_none(node):
    return isinstance(node, ast.Constant) and node.value is None


class Twice(ast.Not):
    """Marks a `not` that is dropped."""


def is_minus(node):
    return isinstance(node.op, ast.USub)


class DropNot(ast.NodeTransformer):
    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        return node.operand if isinstance(node.op, Twice) else node


def skipped(tree):
    """Return the nodes in annotations and `if TYPE_CHECKING`, which are not executed."""
    roots = [getattr(n, "annotation", None) or getattr(n, "returns", None) for n in ast.walk(tree)]
    roots += [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {id(inner) for root in roots if root is not None for inner in ast.walk(root)}


def mutants_of(source):
    """Yield line, description and text of every mutant of a module."""
    tree = ast.parse(source)
    hidden = skipped(tree)
    for index, node in enumerate(ast.walk(tree)):
        for number, (what, _) in enumerate(changes_of(node) if id(node) not in hidden else ()):
            twin = copy.deepcopy(tree)
            target = list(ast.walk(twin))[index]
            list(changes_of(target))[number][1](target)
            yield node.lineno, what, ast.unparse(ast.fix_missing_locations(DropNot().visit(twin)))


def run_tests(folder, tests):
    """Run tests in the copy, in a process that has imported the libraries already; exit with pytest's status."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(folder)
    # The tests need no plugins, and importing them takes longer than most mutants run.
    os.environ.update(PYTHONPATH=folder, OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    sys.dont_write_bytecode = True
    gc.freeze()  # keeps pytest's garbage collection at exit from scanning the libraries' objects
    sys.path[:0] = [folder, *(f"{folder}/{name}" for name in ("tests", "tests/support", "tools"))]
    import pytest

    os._exit(pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-W", "ignore", *tests]))


def run(changed, tests, timeout):
    """Run tests on a copy with the changed modules; return pytest's status, or None after a timeout."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("neft_zoo", "tests", "tools"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / "recipes").symlink_to(ROOT / "recipes")
        shutil.copy(ROOT / "pyproject.toml", folder)
        for module, text in changed.items():
            (Path(folder) / "neft_zoo" / f"{module}.py").write_text(text, encoding="utf-8")
        process = CONTEXT.Process(target=run_tests, args=(folder, [f"tests/{test}" for test in tests]))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            return None
    return process.exitcode


def source_of(module):
    return (ROOT / "neft_zoo" / f"{module}.py").read_text(encoding="utf-8")


def put_mistakes_in(options):
    """Apply every listed mistake; exit with an error unless a test that passes without it fails with it."""
    if run({}, sorted({test for _, _, test, *_ in MISTAKES}), options.timeout * 10) != PASSED:
        sys.exit("the tests of the mistakes fail without a mistake")

    def killed(mistake):
        _, _, test, *changes = mistake
        changed = {}
        for module, old, new in changes:
            changed[module] = put_in(changed.get(module) or source_of(module), old, new)
        return run(changed, [test], options.timeout) == FAILED

    with ThreadPoolExecutor(options.jobs) as pool:
        ends = []
        for (number, what, test, *_), end in zip(MISTAKES, pool.map(killed, MISTAKES), strict=True):
            ends.append(end)
            print(f"| {number} | {what} | `{test}` | {'killed' if end else 'NOT KILLED'} |", flush=True)
    sys.exit(None if all(ends) else "some mistakes are not noticed")


def change_everywhere(module, options, known):
    """Run the mutants of a module and yield each outcome, skipping those known to be killed."""
    tests, source = [f"{name}.py" for name in TESTS[module].split()], source_of(module)
    found = list(mutants_of(source))
    random.Random(0).shuffle(found)

    def killed(mutant):
        line, change, _ = mutant
        told = {"module": module, "line": line, "code": source.splitlines()[line - 1].strip(), "change": change}
        return {**told, "result": "killed"}

    def ending(mutant):
        result = killed(mutant)
        noticed = result in known or run({module: mutant[-1]}, tests, options.timeout) != PASSED
        return result if noticed else {**result, "result": "survived"}

    drawn = sorted(found[: options.limit])
    if any(killed(mutant) not in known for mutant in drawn) and run({}, tests, options.timeout) != PASSED:
        sys.exit(f"the tests of {module} fail without a mutant")
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(ending, drawn):
            print("{result:9} {module}.py:{line} {change}".format(**result), flush=True)
            yield result


def main():
    """Print a line per mutant, write all results as JSON and, after a run of all modules, into docs/mutants.md."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--module", choices=TESTS, action="append", help="default: all")
    options.add_argument("--mistakes", action="store_true", help="put in the listed mistakes instead")
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--limit", type=int, help="at most this many mutants of a module, drawn with seed 0")
    options.add_argument("--timeout", type=float, default=300, help="seconds for one mutant")
    options.add_argument("--json", type=Path, default=Path(tempfile.gettempdir()) / "mutants.json")
    options.add_argument("--again", action="store_true", help="run only what the last run, in --json, did not kill")
    options = options.parse_args()
    if options.mistakes:
        put_mistakes_in(options)
    known, results = json.loads(options.json.read_text()) if options.again else [], []
    for module in options.module or TESTS:
        results += change_everywhere(module, options, known)
        done = {result["module"] for result in results}
        later = [result for result in known if result["module"] not in done]  # kept if this run is interrupted
        options.json.write_text(json.dumps(results + later, indent=1) + "\n")
    if options.module is None:
        survivors.write(ROOT / "docs" / "mutants.md", results, options.limit)


if __name__ == "__main__":
    main()
