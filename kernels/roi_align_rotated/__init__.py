"""Pooling of rotated regions to a fixed size, from one feature map or a pyramid."""

from hydet.kernels.roi_align_rotated.op import roi_align_rotated

__all__ = ["roi_align_rotated"]
