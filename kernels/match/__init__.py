"""Matching of anchors with ground truth."""

from hydet.kernels.match.op import match_anchors

__all__ = ["match_anchors"]
