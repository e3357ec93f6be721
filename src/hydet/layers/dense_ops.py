"""Ops of ``hydet.kernels`` on dense predictions of whole batches."""

from hydet.kernels import match_anchors, nms_padded
from hydet.kernels import sigmoid_focal_loss as dense_focal_loss

__all__ = ["dense_focal_loss", "match_anchors", "nms_padded"]
