"""Whole models."""

from .generalized_rcnn import GeneralizedRCNN
from .meta_architecture import MetaArchitecture
from .panoptic_fpn import PanopticFPN, combine_semantic_and_instance_outputs
from .proposal_network import ProposalNetwork
from .sem_seg_head import SemSegFPNHead
from .semantic_segmentor import SemanticSegmentor

__all__ = [
    "GeneralizedRCNN",
    "MetaArchitecture",
    "PanopticFPN",
    "ProposalNetwork",
    "SemSegFPNHead",
    "SemanticSegmentor",
    "combine_semantic_and_instance_outputs",
]
