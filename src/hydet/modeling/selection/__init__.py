"""Selection of boxes from scores: top-k, clip, filter, suppression.

The functions on tensors work on a whole batch: N images with C candidates each, filters that mark candidates as invalid,
and results padded to a common number of boxes per image, with counts. No shape depends on the data, so they compile and
run in CUDA graphs. The documented functions on ``Instances`` call them and remove the padding.
"""

from .detections import fast_rcnn_inference, fast_rcnn_inference_rotated
from .foreground import select_foreground_proposals, select_proposals_with_visible_keypoints
from .proposals import NonFiniteProposalsError, find_top_rpn_proposals, find_top_rrpn_proposals

__all__ = [
    "NonFiniteProposalsError",
    "fast_rcnn_inference",
    "fast_rcnn_inference_rotated",
    "find_top_rpn_proposals",
    "find_top_rrpn_proposals",
    "select_foreground_proposals",
    "select_proposals_with_visible_keypoints",
]
