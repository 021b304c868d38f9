"""A pytest plugin that checks the shapes in the annotations of the core while tests run.

What annotations need and a run does not (jaxtyping; torch in `neft_zoo.noise`) is imported under `if TYPE_CHECKING`,
so that `neft-zoo list` answers at once. Here these imports are carried out: no module takes part in a circle of
imports, type-only ones included, so any module can be imported with them.
"""

import importlib
import pkgutil
import sys
import typing

import beartype
import hypothesis.strategies  # noqa: F401
from jaxtyping import install_import_hook

CHECKED = [f"neft_zoo.{name}" for name in ("noise", "passes", "objectives", "registry", "strategies", "testing")]
WITHOUT_TRITON = "neft_zoo.passes.triton_kernels"


def check_arrays(function):
    """Check the arguments and results that are arrays; other types pyright checks, and tests pass wrong values."""
    annotations = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in annotations if "Tensor" in str(hint)}
    return beartype.beartype(function)


def import_all():
    for package in map(importlib.import_module, CHECKED):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if found.name != WITHOUT_TRITON:
                importlib.import_module(found.name)


import_all()  # so that type-only imports of other libraries stay out the second time
for name in [name for name in sys.modules if name.partition(".")[0] == "neft_zoo"]:
    del sys.modules[name]
importlib.import_module("neft_zoo")  # its own are for type checkers: names of the trainers
typing.TYPE_CHECKING = True
try:
    with install_import_hook(CHECKED, f"{__name__}.check_arrays"):
        import_all()
finally:
    typing.TYPE_CHECKING = False
