"""Ops of ``hydet.kernels`` on the dense predictions of a whole batch."""

from hydet.kernels import match_anchors, nms_padded, nms_rotated_padded
from hydet.kernels import sigmoid_focal_loss as dense_focal_loss

__all__ = ["dense_focal_loss", "match_anchors", "nms_padded", "nms_rotated_padded"]
