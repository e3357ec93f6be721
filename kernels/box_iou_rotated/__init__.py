"""Intersection over union of rotated boxes."""

from hydet.kernels.box_iou_rotated.op import box_iou_rotated

__all__ = ["box_iou_rotated"]
