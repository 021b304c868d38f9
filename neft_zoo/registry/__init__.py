"""Strategies by name: defining, finding, creating, showing and citing entries."""

from neft_zoo.registry.entries import Entry as Entry
from neft_zoo.registry.entries import builtin_names as builtin_names
from neft_zoo.registry.entries import entry as entry
from neft_zoo.registry.entries import make as make
from neft_zoo.registry.entries import names as names
from neft_zoo.registry.entries import register as register
from neft_zoo.registry.strategy import Strategy as Strategy
