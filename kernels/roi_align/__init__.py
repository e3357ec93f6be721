"""Regions of feature maps at a fixed size, from one map or a pyramid."""

from hydet.kernels.roi_align.op import roi_align

__all__ = ["roi_align"]
