"""How a training step uses its forward passes: a single one, a comparison of several, or an ascent."""

from neft_zoo.objectives.adversarial import Ascent as Ascent
from neft_zoo.objectives.adversarial import CleanAndAdversarial as CleanAndAdversarial
from neft_zoo.objectives.adversarial import FreeAscent as FreeAscent
from neft_zoo.objectives.adversarial import VirtualAdversarial as VirtualAdversarial
from neft_zoo.objectives.base import ComparesPredictions as ComparesPredictions
from neft_zoo.objectives.base import Defaults as Defaults
from neft_zoo.objectives.base import Family as Family
from neft_zoo.objectives.base import Objective as Objective
from neft_zoo.objectives.clean_teacher import CleanTeacher as CleanTeacher
from neft_zoo.objectives.consistency import Consistency as Consistency
from neft_zoo.objectives.consistency import DropoutConsistency as DropoutConsistency
from neft_zoo.objectives.consistency import LayerStability as LayerStability
from neft_zoo.objectives.norm_ball import Ball as Ball
from neft_zoo.objectives.sharpness import SharpnessAware as SharpnessAware
from neft_zoo.objectives.simple import MixedTargets as MixedTargets
from neft_zoo.objectives.simple import SinglePass as SinglePass
from neft_zoo.objectives.simple import SymmetricPair as SymmetricPair
from neft_zoo.objectives.token_aware import TokenAwareAscent as TokenAwareAscent
from neft_zoo.objectives.token_masking import LikelyTokens as LikelyTokens
