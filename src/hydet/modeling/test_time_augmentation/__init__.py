"""Test-time augmentation: run a model on resized and flipped copies of an image and merge the results."""

from .dataset_mapper import AugmentedInput, DatasetMapperTTA, ResizeAndFlip
from .dense import DenseDetectorWithTTA
from .make_tta import make_tta
from .panoptic import PanopticFPNWithTTA
from .proposals import ProposalNetworkWithTTA
from .rcnn import GeneralizedRCNNWithTTA
from .semantic import SemanticSegmentorWithTTA

__all__ = [
    "AugmentedInput",
    "DatasetMapperTTA",
    "DenseDetectorWithTTA",
    "GeneralizedRCNNWithTTA",
    "PanopticFPNWithTTA",
    "ProposalNetworkWithTTA",
    "ResizeAndFlip",
    "SemanticSegmentorWithTTA",
    "make_tta",
]
