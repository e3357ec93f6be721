"""Test-time augmentation: the same picture at several sizes and mirrored, results merged."""

from .dataset_mapper import DatasetMapperTTA, ResizeAndFlip
from .dense import DenseDetectorWithTTA
from .make_tta import make_tta
from .panoptic import PanopticFPNWithTTA
from .rcnn import GeneralizedRCNNWithTTA
from .semantic import SemanticSegmentorWithTTA

__all__ = [
    "DatasetMapperTTA",
    "DenseDetectorWithTTA",
    "GeneralizedRCNNWithTTA",
    "PanopticFPNWithTTA",
    "ResizeAndFlip",
    "SemanticSegmentorWithTTA",
    "make_tta",
]
