"""Ops that torchvision lacks or does slowly; needs only torch, and Triton where it is present.

Every op has a definition in plain torch, a Triton kernel, and is registered with ``torch.library``, so that
``torch.compile`` and ``torch.export`` keep it as one node. ``backends()`` says which of them would run.
"""

from hydet.kernels.box_iou_rotated import box_iou_rotated
from hydet.kernels.dispatch import backends, choose, triton_available
from hydet.kernels.match import match_anchors
from hydet.kernels.nms import nms_padded
from hydet.kernels.nms_rotated import batched_nms_rotated, nms_rotated
from hydet.kernels.paste_masks import paste_masks
from hydet.kernels.roi_align import roi_align
from hydet.kernels.roi_align_rotated import roi_align_rotated
from hydet.kernels.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = [
    "backends",
    "batched_nms_rotated",
    "box_iou_rotated",
    "choose",
    "match_anchors",
    "nms_padded",
    "nms_rotated",
    "paste_masks",
    "roi_align",
    "roi_align_rotated",
    "sigmoid_focal_loss",
    "triton_available",
]
