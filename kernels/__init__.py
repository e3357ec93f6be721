"""Detection ops that torchvision lacks or computes slowly. Requires only torch; uses Triton and torchvision if present.

Each op has a folder with

- ``reference.py``: the definition, as short and obvious as possible; only tests use it;
- ``torch_impl.py``: the fast implementation in PyTorch, for any device;
- ``torchvision_impl.py``: an adapter to torchvision's op, where there is one;
- ``triton_impl.py``: the Triton kernels and their launchers;
- ``op.py``: the op in ``torch.library``, with its order of preference, checks, fake kernel and gradient.

``torch.compile`` and ``torch.export`` keep each op as one node named ``hydet::<op>``. ``backends()`` reports which
implementation each op would use; the environment variable ``HYDET_KERNELS`` (``torch``, ``torchvision`` or ``triton``)
overrides it. See ``hydet.kernels.dispatch``.
"""

from hydet.kernels.box_iou_rotated import box_iou_rotated
from hydet.kernels.dispatch import triton_available
from hydet.kernels.match_anchors import match_anchors
from hydet.kernels.nms_padded import nms_padded
from hydet.kernels.nms_rotated import batched_nms_rotated, nms_rotated, nms_rotated_padded
from hydet.kernels.paste_masks import paste_masks
from hydet.kernels.preferences import backends, choose
from hydet.kernels.roi_align import roi_align
from hydet.kernels.roi_align_rotated import roi_align_rotated
from hydet.kernels.sigmoid_focal_loss import sigmoid_focal_loss
from hydet.kernels.winograd_conv2d import (
    transform_winograd_weight,
    winograd_conv2d,
    winograd_conv2d_transformed,
)

__all__ = [
    "backends",
    "batched_nms_rotated",
    "box_iou_rotated",
    "choose",
    "match_anchors",
    "nms_padded",
    "nms_rotated",
    "nms_rotated_padded",
    "paste_masks",
    "roi_align",
    "roi_align_rotated",
    "sigmoid_focal_loss",
    "transform_winograd_weight",
    "triton_available",
    "winograd_conv2d",
    "winograd_conv2d_transformed",
]
