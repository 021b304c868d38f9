"""Deprecated: import these names from `neft_zoo.noise`; kept until version 0.4."""

from neft_zoo.noise.distributions import Distribution as Distribution
from neft_zoo.noise.distributions import Gaussian as Gaussian
from neft_zoo.noise.distributions import Laplace as Laplace
from neft_zoo.noise.distributions import Rademacher as Rademacher
from neft_zoo.noise.distributions import SharedByToken as SharedByToken
from neft_zoo.noise.distributions import Sphere as Sphere
from neft_zoo.noise.distributions import Uniform as Uniform
