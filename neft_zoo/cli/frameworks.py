"""Shared by `run` and `doctor`: another framework's config file, its options, and `--noise`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from neft_zoo.config.names import check_flags
from neft_zoo.config.noise_flags import take_noise
from neft_zoo.errors import NoiseError, did_you_mean, shown

USAGE = "FRAMEWORK FILE [NAME=VALUE ...] [--noise NAME]"


def read_framework(
    flags: list[str], command: str, frameworks: Collection[str], also: Collection[str] = ()
) -> tuple[str, dict[str, Any], Any]:
    """Return a framework, the options in its file, and their noise, or None without noise.

    Args:
        flags: the command line after the command.
        command: for messages.
        frameworks: those that the command supports.
        also: flags of the command that are already removed, for suggestions.

    Raises:
        NoiseError: if something is missing, unknown, or not in the form `NAME=VALUE`.
    """
    given = take_noise(flags, "none")[0]
    check_flags(given, ("help", "noise", *also))
    if len(given) < 2:
        raise NoiseError(f"{command} needs {USAGE}, got {shown(' '.join(given))}.")
    framework, file, *overrides = given
    if framework not in frameworks:
        near = did_you_mean(framework, frameworks)
        raise NoiseError(f"the framework must be one of {', '.join(frameworks)}, got {shown(framework)}{near}")
    for each in overrides:
        if "=" not in each:
            raise NoiseError(f"options of {framework} must be written NAME=VALUE, got {shown(each)}.")
    from neft_zoo.integrations.option_files import read

    values = read(framework, file, overrides)
    return framework, values, take_noise(flags, values.pop("noise", None))[1]
