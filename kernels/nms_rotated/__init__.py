"""Non-maximum suppression of rotated boxes."""

from hydet.kernels.nms_rotated.op import batched_nms_rotated, nms_rotated, nms_rotated_padded

__all__ = ["batched_nms_rotated", "nms_rotated", "nms_rotated_padded"]
