"""Datasets, augmentation and loaders: from files to the inputs of a model."""

from hydet.data.errors import DataError
from hydet.data.loaders import TestLoader, TrainLoader, build_test_loader, build_train_loader
from hydet.data.mapper import InputMapper
from hydet.data.metadata import Metadata
from hydet.data.record import Record, Segment, segment_to_mask
from hydet.data.samplers import RepeatFactorSampler, ShuffleSampler, repeat_factors
from hydet.data.shapes import SHAPE_CLASSES, SHAPE_KEYPOINTS, ShapesDataset
from hydet.data.transforms import (
    ColorJitter,
    FixedSizeCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Resize,
    ResizeShortestEdge,
    ScaleJitter,
    shortest_edge_size,
)

__all__ = [
    "SHAPE_CLASSES",
    "SHAPE_KEYPOINTS",
    "ColorJitter",
    "DataError",
    "FixedSizeCrop",
    "InputMapper",
    "Metadata",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Record",
    "RepeatFactorSampler",
    "Resize",
    "ResizeShortestEdge",
    "ScaleJitter",
    "Segment",
    "ShapesDataset",
    "ShuffleSampler",
    "TestLoader",
    "TrainLoader",
    "build_test_loader",
    "build_train_loader",
    "repeat_factors",
    "segment_to_mask",
    "shortest_edge_size",
]
