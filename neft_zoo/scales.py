"""Deprecated: import these names from `neft_zoo.noise`; kept until version 0.4."""

from neft_zoo.noise.scales import ByLength as ByLength
from neft_zoo.noise.scales import Fixed as Fixed
from neft_zoo.noise.scales import Length as Length
from neft_zoo.noise.scales import Relative as Relative
from neft_zoo.noise.scales import Scale as Scale
from neft_zoo.noise.scales import Space as Space
