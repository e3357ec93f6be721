"""Per-region heads: which boxes hold an object, and what else there is to say about them."""

from .box_head import FastRCNNConvFCHead
from .cascade_rcnn import CascadeROIHeads
from .detections import fast_rcnn_inference, fast_rcnn_inference_rotated
from .fast_rcnn import FastRCNNOutputLayers
from .keypoint_head import (
    BaseKeypointRCNNHead,
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
)
from .make_each import make_each
from .mask_head import (
    BaseMaskRCNNHead,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from .proposal_selection import select_foreground_proposals, select_proposals_with_visible_keypoints
from .res5_roi_heads import Res5ROIHeads
from .roi_heads import ROIHeads
from .rotated_fast_rcnn import RotatedFastRCNNOutputLayers, RROIHeads
from .standard_roi_heads import StandardROIHeads

__all__ = [
    "BaseKeypointRCNNHead",
    "BaseMaskRCNNHead",
    "CascadeROIHeads",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "KRCNNConvDeconvUpsampleHead",
    "MaskRCNNConvUpsampleHead",
    "ROIHeads",
    "RROIHeads",
    "Res5ROIHeads",
    "RotatedFastRCNNOutputLayers",
    "StandardROIHeads",
    "fast_rcnn_inference",
    "fast_rcnn_inference_rotated",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
    "make_each",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
    "select_foreground_proposals",
    "select_proposals_with_visible_keypoints",
]
