"""Deprecated: import these names from `neft_zoo.noise`; kept until version 0.4."""

from neft_zoo.noise.schedules import SCHEDULES as SCHEDULES
from neft_zoo.noise.schedules import Cosine as Cosine
from neft_zoo.noise.schedules import Linear as Linear
from neft_zoo.noise.schedules import Scalar as Scalar
from neft_zoo.noise.schedules import Schedule as Schedule
from neft_zoo.noise.schedules import WarmUp as WarmUp
from neft_zoo.noise.schedules import Window as Window
from neft_zoo.noise.schedules import value_at as value_at
