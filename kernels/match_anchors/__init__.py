"""Matching of anchors with ground-truth boxes."""

from hydet.kernels.match_anchors.op import match_anchors

__all__ = ["match_anchors"]
