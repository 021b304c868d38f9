"""What is read from the source of TRL and accelerate is what they declare."""

import dataclasses
import subprocess
import sys

import pytest
from accelerate.commands.launch import launch_command_parser

from neft_zoo import NoiseError
from neft_zoo.config import declared
from neft_zoo.config.declared import config_options, launch_options
from neft_zoo.config.names import ALIASES, check_flags, check_keys
from neft_zoo.config.options import CONFIGS, NAMES, Parser


def test_the_options_are_those_of_the_configs():
    assert config_options().keys() == NAMES
    defaults = {f.name: f.default for config in CONFIGS for f in dataclasses.fields(config)}
    for option in config_options().values():
        assert option.help and option.group
        if option.default:
            assert option.default == repr(defaults[option.name]), option
    assert sum(bool(option.default) for option in config_options().values()) > 80


def test_a_flag_that_switches_off_is_known_where_trl_has_one():
    flags = {name for action in Parser()._actions for name in action.option_strings if name.startswith("--no_")}
    ours = {f"--no_{option.name}" for option in config_options().values() if option.switched_on}
    assert ours == flags - {"--no_cuda"}


def test_the_options_of_the_launcher_are_those_of_its_parser():
    actions = launch_command_parser()._actions
    theirs = {flag[2:]: action.nargs != 0 for action in actions for flag in action.option_strings if flag[:2] == "--"}
    assert launch_options() == {name: value for name, value in theirs.items() if "-" not in name}


def test_reading_them_imports_nothing():
    code = "import sys; from neft_zoo.config import declared as d; assert d.config_options() and d.launch_options()\n"
    code += "assert not {'torch', 'trl', 'transformers', 'accelerate'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_source_that_is_not_where_we_know_it_accepts_every_name(monkeypatch):
    monkeypatch.setattr(declared, "CONFIGS", (("trl", "gone.py", "Gone", "Gone"),))
    declared.config_options.cache_clear()
    try:
        assert declared.config_options() == {}
        check_flags(["--anything"], declared.config_options())
        check_keys(["anything"], declared.config_options(), {})
    finally:
        declared.config_options.cache_clear()


@pytest.mark.parametrize("alias", ALIASES)
def test_an_option_of_other_programs_is_told_by_its_name_here(alias):
    assert ALIASES[alias] in NAMES and alias not in NAMES
    with pytest.raises(NoiseError, match=f"unknown option '--{alias}'; did you mean --{ALIASES[alias]}?"):
        check_flags([f"--{alias}=3"], NAMES)
    with pytest.raises(NoiseError, match=f"r.yaml line 2: unknown option '{alias}'; did you mean {ALIASES[alias]}?"):
        check_keys([alias], NAMES, {alias: "r.yaml line 2"})
