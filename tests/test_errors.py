"""Messages: one line, whatever was passed or raised, with the nearest accepted name or the extra to install."""

import pytest

from neft_zoo import NoiseError
from neft_zoo.errors import did_you_mean, one_line, require, shown


def test_foreign_errors_come_on_one_line():
    assert one_line(ValueError("two\n  lines.")) == "two lines"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line("x" * 1000)) == 300


def test_the_nearest_name_is_told():
    assert did_you_mean("alhpa", ["alpha", "rho"]) == "; did you mean alpha?"
    assert did_you_mean("zzz", ["alpha", "rho"]) == "."
    assert did_you_mean("a" * 10**6, ["alpha"]) == "."


def test_a_missing_extra_is_named():
    assert require("json", "a test", "plot").dumps([]) == "[]"
    with pytest.raises(NoiseError, match=r"^plots needs no_such_module: pip install 'neft-zoo\[plot\]'\.$"):
        require("no_such_module.figure", "plots", "plot")


def test_values_are_shortened():
    assert len(shown("x" * 10**6)) < 100
    assert shown(10**1000) == f"a whole number of {(10**1000).bit_length()} bits"
