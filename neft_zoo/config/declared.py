"""The options that TRL, transformers and accelerate declare, parsed from their source, since importing takes seconds.

`neft-zoo sft --help` and the check for misspelt flags use these; for a run, TRL's own parser is used
(`config.options`).
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Package, file and class, base classes first; and the heading, if the source has none.
CONFIGS = (
    ("neft_zoo", "training/sft_config.py", "NoiseSFTConfig", "Noise"),
    ("trl", "scripts/utils.py", "ScriptArguments", "Dataset"),
    ("neft_zoo", "config/data.py", "DataArguments", "Dataset"),
    ("trl", "scripts/utils.py", "DatasetMixtureConfig", "Several datasets"),
    ("trl", "trainer/model_config.py", "ModelConfig", "Model"),
    ("transformers", "training_args.py", "TrainingArguments", "Training"),
    ("trl", "trainer/base_config.py", "_BaseConfig", "Training"),
    ("trl", "trainer/sft_config.py", "SFTConfig", "Fine-tuning"),
)
LAUNCHER = ("accelerate", "commands/launch.py", "launch_command_parser")
HEADING = re.compile(r"^    # (?:--- (.+) ---|Parameters that control (?:the )?(.+))$")
WITHOUT_VALUE = ("store_true", "store_false", "help")


@dataclass(frozen=True)
class Declared:
    """An option of a config.

    Attributes:
        name: without dashes.
        group: heading above it in the source.
        help: its description in one sentence.
        kind: type annotation, as written.
        default: default value, as written; empty if it is None or computed.
    """

    name: str
    group: str
    help: str
    kind: str
    default: str

    @property
    def switched_on(self) -> bool:
        """Whether it is true by default, so that TRL's parser also has `--no_NAME`."""
        return self.kind.startswith("bool") and self.default == "True"


@cache
def config_options() -> dict[str, Declared]:
    """Return the options of a recipe by name; empty if a source file is not where it is expected."""
    options: dict[str, Declared] = {}
    for package, file, name, heading in CONFIGS:
        source = _source(package, file)
        body = _find(source, name)
        if body is None:
            return {}
        for option in _fields(body, source, heading):
            known = options.get(option.name)
            group = option.group if known is None else known.group
            options[option.name] = Declared(option.name, group, option.help, option.kind, option.default)
    return options


@cache
def launch_options() -> dict[str, bool]:
    """Return the long options of `accelerate launch`, and whether each takes a value."""
    package, file, name = LAUNCHER
    body = _find(_source(package, file), name)
    options: dict[str, bool] = {}
    for call in ast.walk(body) if body is not None else ():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
            flags = [text for argument in call.args if (text := _text(argument)).startswith("--")]
            action = next((_text(keyword.value) for keyword in call.keywords if keyword.arg == "action"), "")
            options |= dict.fromkeys((flag[2:] for flag in flags), action not in WITHOUT_VALUE)
    return options


def _source(package: str, file: str) -> str:
    """Return the text of a file in an installed package, without importing it; empty if there is none."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    paths = [Path(folder) / file for folder in folders]
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), "")


def _find(source: str, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    kinds = (ast.ClassDef, ast.FunctionDef)
    return next((node for node in ast.parse(source).body if isinstance(node, kinds) and node.name == name), None)


def _fields(body: ast.ClassDef | ast.FunctionDef, source: str, heading: str) -> Iterator[Declared]:
    """Yield the fields of a dataclass, each with the heading in the comments above it."""
    lines = source.splitlines()
    line = body.lineno
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        for match in filter(None, map(HEADING.match, lines[line : node.lineno])):
            heading = (match[1] or match[2]).capitalize() if match[2] else match[1]
        line = node.lineno
        written = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
        default = written.get("default", node.value if not isinstance(node.value, ast.Call) else None)
        literal = isinstance(default, ast.Constant | ast.UnaryOp) and ast.unparse(default) != "None"
        shown = ast.unparse(default) if default is not None and literal else ""
        help_text = _text(_entry(written.get("metadata"), "help")).replace("%%", "%")
        yield Declared(node.target.id, heading, _sentence(help_text), ast.unparse(node.annotation), shown)


def _entry(mapping: ast.expr | None, key: str) -> ast.expr | None:
    if not isinstance(mapping, ast.Dict):
        return None
    pairs = zip(mapping.keys, mapping.values, strict=True)
    return next((value for name, value in pairs if name is not None and _text(name) == key), None)


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _sentence(text: str) -> str:
    """Return the first sentence."""
    return re.split(r"(?<=[a-z`)\]]{2}\.) ", text, maxsplit=1)[0].strip()
