"""Every public part of a detector, flat: ``from hydet.modeling import FPN, RPN, StandardROIHeads``."""

from . import (
    anchors,
    backbones,
    box_regression,
    matcher,
    meta_arch,
    mmdet,
    poolers,
    postprocessing,
    proposal_generators,
    roi_heads,
    sampling,
    test_time_augmentation,
)
from .anchors import *
from .backbones import *
from .box_regression import *
from .matcher import *
from .meta_arch import *
from .mmdet import *
from .poolers import *
from .postprocessing import *
from .proposal_generators import *
from .roi_heads import *
from .sampling import *
from .test_time_augmentation import *

__all__ = [
    *anchors.__all__,
    *backbones.__all__,
    *box_regression.__all__,
    *matcher.__all__,
    *meta_arch.__all__,
    *mmdet.__all__,
    *poolers.__all__,
    *postprocessing.__all__,
    *proposal_generators.__all__,
    *roi_heads.__all__,
    *sampling.__all__,
    *test_time_augmentation.__all__,
]
