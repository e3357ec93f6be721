"""Datasets, augmentation and loaders: from files to the inputs of a model."""

from hydet.data.coco.category_weights import frequency_weights, get_fed_loss_cls_weights
from hydet.data.coco.dataset import CocoDataset
from hydet.data.coco.writer import write_coco
from hydet.data.datasets.dataset import BaseDataset, DetectionDataset, RecordSource, as_detection_dataset
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Proposals, Record, Segment, segment_to_mask
from hydet.data.datasets.report import DataReport, Problem
from hydet.data.errors import DataError
from hydet.data.images.reading import ImageReader, read_image
from hydet.data.loading.evaluation_loader import EvaluationLoader, build_evaluation_loader
from hydet.data.loading.samplers import (
    RepeatFactorSampler,
    ShuffleSampler,
    make_repeat_factor_sampler,
    make_shuffle_sampler,
    repeat_factors,
)
from hydet.data.loading.train_loader import TrainLoader, build_train_loader
from hydet.data.mapping.mapper import InputMapper
from hydet.data.proposals.proposal_file import ProposalFile, write_proposals
from hydet.data.proposals.with_proposals import WithProposals
from hydet.data.shapes import SHAPE_CLASSES, SHAPE_KEYPOINTS, ShapesDataset
from hydet.data.transforms.color import ColorJitter
from hydet.data.transforms.cropping import FixedSizeCrop, RandomCrop
from hydet.data.transforms.flipping import RandomHorizontalFlip, RandomVerticalFlip
from hydet.data.transforms.resizing import Resize, ResizeShortestEdge, ScaleJitter
from hydet.structures import shortest_edge_size

__all__ = [
    "SHAPE_CLASSES",
    "SHAPE_KEYPOINTS",
    "BaseDataset",
    "CocoDataset",
    "ColorJitter",
    "DataError",
    "DataReport",
    "DetectionDataset",
    "EvaluationLoader",
    "FixedSizeCrop",
    "ImageReader",
    "InputMapper",
    "Metadata",
    "Problem",
    "ProposalFile",
    "Proposals",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Record",
    "RecordSource",
    "RepeatFactorSampler",
    "Resize",
    "ResizeShortestEdge",
    "ScaleJitter",
    "Segment",
    "ShapesDataset",
    "ShuffleSampler",
    "TrainLoader",
    "WithProposals",
    "as_detection_dataset",
    "build_evaluation_loader",
    "build_train_loader",
    "frequency_weights",
    "get_fed_loss_cls_weights",
    "make_repeat_factor_sampler",
    "make_shuffle_sampler",
    "read_image",
    "repeat_factors",
    "segment_to_mask",
    "shortest_edge_size",
    "write_coco",
    "write_proposals",
]
