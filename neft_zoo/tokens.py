"""Deprecated: import these names from `neft_zoo.noise`; kept until version 0.4."""

from neft_zoo.noise.tokens import Role as Role
from neft_zoo.noise.tokens import Tokens as Tokens
from neft_zoo.noise.tokens import Where as Where
