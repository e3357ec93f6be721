"""Datasets, augmentation and loaders: from files to the inputs of a model."""

from hydet.data.category_weights import frequency_weights
from hydet.data.coco import CocoDataset
from hydet.data.coco_writer import write_coco
from hydet.data.errors import DataError
from hydet.data.images import read_image
from hydet.data.loaders import TestLoader, TrainLoader, build_test_loader, build_train_loader
from hydet.data.mapper import InputMapper
from hydet.data.metadata import Metadata
from hydet.data.proposal_file import ProposalFile, write_proposals
from hydet.data.record import Proposals, Record, Segment, segment_to_mask
from hydet.data.report import DataReport, Problem
from hydet.data.samplers import (
    RepeatFactorSampler,
    ShuffleSampler,
    make_repeat_factor_sampler,
    make_shuffle_sampler,
    repeat_factors,
)
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
from hydet.data.with_proposals import WithProposals

__all__ = [
    "SHAPE_CLASSES",
    "SHAPE_KEYPOINTS",
    "CocoDataset",
    "ColorJitter",
    "DataError",
    "DataReport",
    "FixedSizeCrop",
    "InputMapper",
    "Metadata",
    "Problem",
    "ProposalFile",
    "Proposals",
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
    "WithProposals",
    "build_test_loader",
    "build_train_loader",
    "frequency_weights",
    "make_repeat_factor_sampler",
    "make_shuffle_sampler",
    "read_image",
    "repeat_factors",
    "segment_to_mask",
    "shortest_edge_size",
    "write_coco",
    "write_proposals",
]
