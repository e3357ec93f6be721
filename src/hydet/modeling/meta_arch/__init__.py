"""Whole models."""

from .dense_detector import DenseDetector
from .dense_heads import FCOSHead, RetinaNetHead
from .fcos import FCOS
from .generalized_rcnn import GeneralizedRCNN
from .meta_architecture import MetaArchitecture
from .panoptic_fpn import PanopticFPN, combine_semantic_and_instance_outputs
from .proposal_network import ProposalNetwork
from .retinanet import RetinaNet
from .sem_seg_head import SemSegFPNHead
from .semantic_segmentor import SemanticSegmentor

__all__ = [
    "FCOS",
    "DenseDetector",
    "FCOSHead",
    "GeneralizedRCNN",
    "MetaArchitecture",
    "PanopticFPN",
    "ProposalNetwork",
    "RetinaNet",
    "RetinaNetHead",
    "SemSegFPNHead",
    "SemanticSegmentor",
    "combine_semantic_and_instance_outputs",
]
