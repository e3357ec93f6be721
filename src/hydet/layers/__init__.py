"""Layers, layer wrappers and losses."""

from hydet.structures import paste_masks_in_image

from .aspp import ASPP
from .blocks import CNNBlockBase, DepthwiseSeparableConv2d
from .conv import Conv2d, ConvTranspose2d, Linear
from .deform_conv import DeformConv, ModulatedDeformConv
from .drop_path import DropPath
from .initialization import c2_msra_fill, c2_xavier_fill
from .losses import ciou_loss, diou_loss, giou_loss, sigmoid_focal_loss, smooth_l1_loss
from .nms import batched_nms, batched_nms_rotated, nms, nms_rotated
from .norms import (
    BatchNorm2d,
    CycleBatchNormList,
    FrozenBatchNorm2d,
    LayerNorm,
    NaiveSyncBatchNorm,
    get_norm,
)
from .roi_align import ROIAlign, ROIAlignRotated, roi_align, roi_align_rotated
from .shape_spec import ShapeSpec
from .tensor_ops import cat, cross_entropy, interpolate, nonzero_tuple

__all__ = [
    "ASPP",
    "BatchNorm2d",
    "CNNBlockBase",
    "Conv2d",
    "ConvTranspose2d",
    "CycleBatchNormList",
    "DeformConv",
    "DepthwiseSeparableConv2d",
    "DropPath",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "Linear",
    "ModulatedDeformConv",
    "NaiveSyncBatchNorm",
    "ROIAlign",
    "ROIAlignRotated",
    "ShapeSpec",
    "batched_nms",
    "batched_nms_rotated",
    "c2_msra_fill",
    "c2_xavier_fill",
    "cat",
    "ciou_loss",
    "cross_entropy",
    "diou_loss",
    "get_norm",
    "giou_loss",
    "interpolate",
    "nms",
    "nms_rotated",
    "nonzero_tuple",
    "paste_masks_in_image",
    "roi_align",
    "roi_align_rotated",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]
