"""The command line, one module per command."""

from neft_zoo.cli.main import main as main
