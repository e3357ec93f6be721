"""Ops on whole batches of dense predictions, from ``hydet.kernels``; each picks the best backend when it is called."""

from hydet.kernels import match_anchors, nms_padded
from hydet.kernels import sigmoid_focal_loss as dense_focal_loss

__all__ = ["dense_focal_loss", "match_anchors", "nms_padded"]
