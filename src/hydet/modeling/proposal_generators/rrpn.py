"""Rotated region proposal network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hydet.modeling.matcher import match_boxes
from hydet.structures import Boxes
from hydet.structures.rotated_boxes import pairwise_iou_rotated

from .rpn import RPN

__all__ = ["RRPN"]


class RRPN(RPN):
    """``RPN`` for rotated boxes: (cx, cy, w, h, degrees counter-clockwise).

    Args:
        **kwargs: arguments of ``RPN``, with a ``RotatedAnchorGenerator``, a ``Box2BoxTransformRotated`` and a head with
            ``box_dim`` 5.

    Raises:
        ValueError: if ``anchor_boundary_thresh`` >= 0, since a border test of rotated anchors is not defined; or if the
            anchors are not rotated.

    Only proposals within a degree of upright are clipped to the image.

    Source: Ma et al. 2018 (arXiv:1703.01086).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.anchor_boundary_thresh >= 0:
            raise ValueError(
                f"RRPN: anchor_boundary_thresh must be negative, got {self.anchor_boundary_thresh}"
            )
        if self.box_dim != 5:
            raise ValueError("RRPN: anchor_generator makes upright anchors; use RotatedAnchorGenerator")

    def _match(self, gt_boxes: Boxes, anchors: Boxes) -> tuple[Tensor, Tensor]:
        return match_boxes(self.anchor_matcher, gt_boxes, anchors, pairwise_iou=pairwise_iou_rotated)
