"""Pooling of upright regions to a fixed size, from one feature map or a pyramid."""

from hydet.kernels.roi_align.op import roi_align

__all__ = ["roi_align"]
