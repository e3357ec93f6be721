"""Datasets, augmentation and loaders: from files to the inputs of a model."""

from hydet.data.errors import DataError
from hydet.data.metadata import Metadata
from hydet.data.record import Record, Segment, segment_to_mask
from hydet.data.shapes import SHAPE_CLASSES, SHAPE_KEYPOINTS, ShapesDataset

__all__ = [
    "SHAPE_CLASSES",
    "SHAPE_KEYPOINTS",
    "DataError",
    "Metadata",
    "Record",
    "Segment",
    "ShapesDataset",
    "segment_to_mask",
]
