"""Rotated regions of feature maps at a fixed size, from one map or a pyramid."""

from hydet.kernels.roi_align_rotated.op import roi_align_rotated

__all__ = ["roi_align_rotated"]
