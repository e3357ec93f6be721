"""Ops of ``hydet.kernels`` that pool regions from all levels of a feature pyramid at once."""

from hydet.kernels import roi_align as pyramid_roi_align
from hydet.kernels import roi_align_rotated as pyramid_roi_align_rotated

__all__ = ["pyramid_roi_align", "pyramid_roi_align_rotated"]
