"""Whole models."""

from .generalized_rcnn import GeneralizedRCNN
from .meta_architecture import MetaArchitecture

__all__ = ["GeneralizedRCNN", "MetaArchitecture"]
