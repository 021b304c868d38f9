"""The names of the package, which are loaded when first used, are those that a type checker reads."""

import ast
from importlib import import_module
from pathlib import Path

import neft_zoo


def test_what_a_type_checker_imports_is_what_is_loaded():
    tree = ast.parse(Path(neft_zoo.__file__).read_text())
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and "neft_zoo" in str(each.module)]
    homes = {alias.asname: each.module for each in imports for alias in each.names}
    assert sorted(homes) == sorted(neft_zoo.__all__)
    for name, module in homes.items():
        assert getattr(import_module(module), name) is getattr(neft_zoo, name)
