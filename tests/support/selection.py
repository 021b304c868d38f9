"""Parameters of which `make test` runs some, because the others repeat a behaviour; `make test-all` runs every one."""

import pytest

from neft_zoo import make

# Entries that a text model without an adapter refuses.
NEED_OTHER_MODELS = {"lora_matrix_dropout", "stm", "visual_noise"}


def quick(values, *kept):
    """Return the values, all but `kept` marked as slow; each that is kept must be one of them."""
    values = list(values)
    missing = set(kept) - set(values)
    assert not missing, f"not among the values: {missing}"
    return [value if value in kept else _slow(value) for value in values]


def _slow(value):
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)


def one_of_each_kind(names):
    """Return the first strategy of every objective and site, of those that are named."""
    kinds = {}
    for name in names:
        strategy = make(name)
        kinds.setdefault((type(strategy.objective), strategy.site), name)
    return list(kinds.values())
