"""Proposal generators: from feature maps to regions that may contain an object."""

from .ground_truth import add_ground_truth_to_proposals, add_ground_truth_to_proposals_single_image
from .rpn import RPN
from .rpn_head import StandardRPNHead
from .rrpn import RRPN

__all__ = [
    "RPN",
    "RRPN",
    "StandardRPNHead",
    "add_ground_truth_to_proposals",
    "add_ground_truth_to_proposals_single_image",
]
