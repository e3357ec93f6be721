"""ROI heads: classes, boxes, masks and keypoints of the regions that a proposal generator selects."""

from .box_head import FastRCNNConvFCHead
from .cascade_rcnn import CascadeROIHeads
from .fast_rcnn import FastRCNNOutputLayers
from .interfaces import BoxPredictions, BoxPredictor, RegionHead, RegionPooler
from .keypoint_head import (
    BaseKeypointRCNNHead,
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
)
from .make_each import make_each
from .mask_head import (
    BaseMaskRCNNHead,
    MaskHeadEnsemble,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from .res5_roi_heads import Res5ROIHeads
from .roi_heads import ROIHeads
from .rotated_fast_rcnn import RotatedFastRCNNOutputLayers, RROIHeads
from .standard_roi_heads import StandardROIHeads

__all__ = [
    "BaseKeypointRCNNHead",
    "BaseMaskRCNNHead",
    "BoxPredictions",
    "BoxPredictor",
    "CascadeROIHeads",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "KRCNNConvDeconvUpsampleHead",
    "MaskHeadEnsemble",
    "MaskRCNNConvUpsampleHead",
    "ROIHeads",
    "RROIHeads",
    "RegionHead",
    "RegionPooler",
    "Res5ROIHeads",
    "RotatedFastRCNNOutputLayers",
    "StandardROIHeads",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
    "make_each",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
]
