"""All public parts of a detector, flat: ``from hydet.modeling import FPN, RPN, StandardROIHeads``."""

from importlib import import_module
from typing import Any

from . import (
    anchors,
    backbones,
    box_regression,
    class_rows,
    matcher,
    meta_arch,
    optimization,
    padded,
    poolers,
    postprocessing,
    proposal_generators,
    protocols,
    roi_heads,
    sampling,
    selection,
    test_time_augmentation,
    tiling,
)
from .anchors import *
from .backbones import *
from .box_regression import *
from .class_rows import *
from .matcher import *
from .meta_arch import *
from .optimization import *
from .padded import *
from .poolers import *
from .postprocessing import *
from .proposal_generators import *
from .protocols import *
from .roi_heads import *
from .sampling import *
from .selection import *
from .test_time_augmentation import *
from .tiling import *

__all__ = [
    *anchors.__all__,
    *backbones.__all__,
    *box_regression.__all__,
    *class_rows.__all__,
    *matcher.__all__,
    *meta_arch.__all__,
    "MMDetBackbone",
    "MMDetDetector",
    *optimization.__all__,
    *padded.__all__,
    *poolers.__all__,
    *postprocessing.__all__,
    *proposal_generators.__all__,
    *protocols.__all__,
    *roi_heads.__all__,
    *sampling.__all__,
    *selection.__all__,
    *test_time_augmentation.__all__,
    *tiling.__all__,
]


def __getattr__(name: str) -> Any:
    # The mmdet wrappers are documented names of this package, but live above it, in hydet.interop.
    if name in ("MMDetBackbone", "MMDetDetector"):
        return getattr(import_module("hydet.interop.mmdet"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
