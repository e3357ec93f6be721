"""From feature maps to regions that may hold an object."""

from .ground_truth import add_ground_truth_to_proposals, add_ground_truth_to_proposals_single_image
from .rpn import RPN
from .rpn_head import StandardRPNHead
from .rrpn import RRPN
from .selection import NonFiniteProposalsError, find_top_rpn_proposals, find_top_rrpn_proposals

__all__ = [
    "RPN",
    "RRPN",
    "NonFiniteProposalsError",
    "StandardRPNHead",
    "add_ground_truth_to_proposals",
    "add_ground_truth_to_proposals_single_image",
    "find_top_rpn_proposals",
    "find_top_rrpn_proposals",
]
