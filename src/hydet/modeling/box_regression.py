"""Box deltas: the numbers that move a source box onto a target box, and their regression loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.layers import ciou_loss, diou_loss, giou_loss, smooth_l1_loss
from hydet.structures import Boxes
from hydet.structures.box_ops import wrap_angles

__all__ = [
    "Box2BoxTransform",
    "Box2BoxTransformLinear",
    "Box2BoxTransformRotated",
    "box_regression_loss",
    "dense_box_regression_loss",
]

# A network may predict any log ratio, and its exponential would overflow to infinity. log(1000 / 16) lets a source of 16
# pixels grow to 1000 pixels, about the largest side of an image, so no useful prediction is cut.
SCALE_CLAMP = math.log(1000.0 / 16)


class Box2BoxTransform:
    """Box deltas of R-CNN: center offsets relative to the size of the source box, and logarithms of size ratios.

    Args:
        weights: factors of (dx, dy, dw, dh). Factors above 1 bring deltas, which are small numbers, to about unit
            variance, so that their loss has a weight similar to that of the classification.
        scale_clamp: upper bound of dw and dh before exponentiation.

    Source: Girshick et al. 2014 (arXiv:1311.2524), appendix C.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = SCALE_CLAMP) -> None:
        self.weights = _check_weights(weights, 4)
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Compute the deltas that ``apply_deltas`` turns back into ``target_boxes``.

        Args:
            src_boxes: ``(..., 4)`` with positive sides.
            target_boxes: ``(..., 4)`` in the same frame; a side of length 0 gives -inf.

        Returns:
            ``(..., 4)`` as (dx, dy, dw, dh), float32.
        """
        width, height, x, y = _sizes_and_center(src_boxes.float())
        target_width, target_height, target_x, target_y = _sizes_and_center(target_boxes.float())
        wx, wy, ww, wh = self.weights
        deltas = [
            wx * (target_x - x) / width,
            wy * (target_y - y) / height,
            ww * torch.log(target_width / width),
            wh * torch.log(target_height / height),
        ]
        return torch.stack(deltas, dim=-1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move and scale boxes.

        Args:
            deltas: ``(..., k * 4)``, k predictions per box.
            boxes: ``(..., 4)``.

        Returns:
            ``(..., k * 4)`` boxes in the frame of ``boxes``, not clipped; always float32.

        Raises:
            ValueError: if the last axis of ``deltas`` is not a multiple of 4.
        """
        width, height, x, y = _sizes_and_center(boxes.float().unsqueeze(-2))  # (..., 1)
        dx, dy, dw, dh = _split_predictions(deltas, 4).unbind(-1)  # (..., k)
        wx, wy, ww, wh = self.weights
        x, y = x + dx / wx * width, y + dy / wy * height
        half_width = 0.5 * width * (dw / ww).clamp(max=self.scale_clamp).exp()
        half_height = 0.5 * height * (dh / wh).clamp(max=self.scale_clamp).exp()
        sides = [x - half_width, y - half_height, x + half_width, y + half_height]
        return torch.stack(sides, dim=-1).flatten(-2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weights={self.weights}, scale_clamp={self.scale_clamp:.4f})"


class Box2BoxTransformRotated:
    """``Box2BoxTransform`` for boxes (cx, cy, w, h, degrees), with the difference of the angles in radians.

    Args:
        weights: factors of (dx, dy, dw, dh, da).
        scale_clamp: upper bound of dw and dh before exponentiation.

    Angle differences are wrapped to [-180, 180) degrees in both directions.

    Source: Ma et al. 2017 (arXiv:1703.01086), section III-D.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = SCALE_CLAMP) -> None:
        self.weights = _check_weights(weights, 5)
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Compute the deltas that ``apply_deltas`` turns back into ``target_boxes``, with the smaller rotation.

        Args:
            src_boxes: ``(..., 5)`` with positive sides.
            target_boxes: ``(..., 5)`` in the same frame.

        Returns:
            ``(..., 5)`` as (dx, dy, dw, dh, da), float32.
        """
        x, y, width, height, angle = src_boxes.float().unbind(-1)
        target_x, target_y, target_width, target_height, target_angle = target_boxes.float().unbind(-1)
        wx, wy, ww, wh, wa = self.weights
        deltas = [
            wx * (target_x - x) / width,
            wy * (target_y - y) / height,
            ww * torch.log(target_width / width),
            wh * torch.log(target_height / height),
            wa * wrap_angles(target_angle - angle).deg2rad(),
        ]
        return torch.stack(deltas, dim=-1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move, scale and turn boxes.

        Args:
            deltas: ``(..., k * 5)``, k predictions per box.
            boxes: ``(..., 5)``.

        Returns:
            ``(..., k * 5)`` boxes with angles in [-180, 180); always float32.

        Raises:
            ValueError: if the last axis of ``deltas`` is not a multiple of 5.
        """
        x, y, width, height, angle = boxes.float().unsqueeze(-2).unbind(-1)  # (..., 1)
        dx, dy, dw, dh, da = _split_predictions(deltas, 5).unbind(-1)  # (..., k)
        wx, wy, ww, wh, wa = self.weights
        moved = [
            x + dx / wx * width,
            y + dy / wy * height,
            width * (dw / ww).clamp(max=self.scale_clamp).exp(),
            height * (dh / wh).clamp(max=self.scale_clamp).exp(),
            wrap_angles(angle + (da / wa).rad2deg()),
        ]
        return torch.stack(moved, dim=-1).flatten(-2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weights={self.weights}, scale_clamp={self.scale_clamp:.4f})"


class Box2BoxTransformLinear:
    """Box deltas of FCOS: distances from the center of a square box to the left, top, right and bottom target edge.

    Args:
        normalize_by_size: measure distances in sides of the source box instead of pixels.
        exponential: deltas are logarithms of distances, as in the paper. Otherwise they are distances, and negative
            ones count as 0.

    Source: Tian et al. 2019, FCOS (arXiv:1904.01355), section 3.1.
    """

    def __init__(self, normalize_by_size: bool = True, exponential: bool = False) -> None:
        self.normalize_by_size = normalize_by_size
        self.exponential = exponential

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Compute the distances to the edges; negative, or NaN as logarithms, where the center is outside the target.

        Args:
            src_boxes: ``(..., 4)`` square boxes.
            target_boxes: ``(..., 4)`` in the same frame.

        Returns:
            ``(..., 4)`` float32.
        """
        width, height, x, y = _sizes_and_center(src_boxes.float())
        x1, y1, x2, y2 = target_boxes.float().unbind(-1)
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
        if self.normalize_by_size:
            left, top, right, bottom = left / width, top / height, right / width, bottom / height
        distances = torch.stack([left, top, right, bottom], dim=-1)
        return distances.log() if self.exponential else distances

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Compute the boxes whose edges are at given distances from the centers of ``boxes``.

        Args:
            deltas: ``(..., k * 4)``, k predictions per box.
            boxes: ``(..., 4)`` square boxes.

        Returns:
            ``(..., k * 4)`` boxes; always float32.

        Raises:
            ValueError: if the last axis of ``deltas`` is not a multiple of 4.
        """
        width, height, x, y = _sizes_and_center(boxes.float().unsqueeze(-2))  # (..., 1)
        split = _split_predictions(deltas, 4)
        distances = split.exp() if self.exponential else split.relu()
        left, top, right, bottom = distances.unbind(-1)  # (..., k)
        if self.normalize_by_size:
            left, top, right, bottom = left * width, top * height, right * width, bottom * height
        return torch.stack([x - left, y - top, x + right, y + bottom], dim=-1).flatten(-2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(normalize_by_size={self.normalize_by_size}, exponential={self.exponential})"


BoxTransform = Box2BoxTransform | Box2BoxTransformRotated | Box2BoxTransformLinear
IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


def box_regression_loss(
    sources: Tensor,
    deltas: Tensor,
    targets: Tensor,
    transform: BoxTransform,
    loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Compute the regression loss of matched boxes, summed over boxes.

    Args:
        sources: ``(P, D)`` anchors or proposals, D is 4 or 5.
        deltas: ``(P, D)`` predictions.
        targets: ``(P, D)`` ground-truth boxes.
        transform: relates sources, deltas and targets.
        loss_type: ``smooth_l1`` compares deltas; ``giou``, ``diou`` and ``ciou`` compare boxes.
        smooth_l1_beta: error at which smooth L1 becomes linear; 0 for plain L1.

    Returns:
        A scalar, computed in float32; a connected 0 if there are no boxes.

    Raises:
        ValueError: if ``loss_type`` is unknown.
    """
    if loss_type == "smooth_l1":
        target_deltas = transform.get_deltas(sources, targets)
        return smooth_l1_loss(deltas.float(), target_deltas, beta=smooth_l1_beta, reduction="sum")
    if loss_type not in IOU_LOSSES:
        raise ValueError(f"box_reg_loss_type must be smooth_l1, giou, diou or ciou, got {loss_type!r}")
    return IOU_LOSSES[loss_type](transform.apply_deltas(deltas, sources), targets, reduction="sum")


def dense_box_regression_loss(
    anchors: Sequence[Boxes | Tensor],
    box2box_transform: BoxTransform,
    pred_anchor_deltas: Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    fg_mask: Tensor,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Compute the regression loss of dense predictions, summed over the anchors of ``fg_mask``.

    Args:
        anchors: per level, ``(R_i, D)`` boxes; R over all levels.
        box2box_transform: relates anchors, deltas and boxes.
        pred_anchor_deltas: per level, ``(N, R_i, D)``.
        gt_boxes: per image, the ``(R, D)`` boxes that the anchors were matched to; arbitrary where ``fg_mask`` is
            False.
        fg_mask: ``(N, R)`` bool, True for anchors with a box loss.
        box_reg_loss_type: see ``box_regression_loss``.
        smooth_l1_beta: see ``box_regression_loss``.

    Returns:
        A scalar, computed in float32; a connected 0 if ``fg_mask`` is False everywhere.
    """
    image, anchor = fg_mask.nonzero(as_tuple=True)
    sources = torch.cat([a.tensor if isinstance(a, Boxes) else a for a in anchors])  # (R, D)
    deltas = torch.cat(list(pred_anchor_deltas), dim=1)  # (N, R, D)
    return box_regression_loss(
        sources[anchor],
        deltas[image, anchor],
        torch.stack(list(gt_boxes))[image, anchor],
        box2box_transform,
        box_reg_loss_type,
        smooth_l1_beta,
    )


def _check_weights(weights: Sequence[float], count: int) -> tuple[float, ...]:
    if len(weights) != count or any(w <= 0 for w in weights):
        raise ValueError(f"weights must be {count} positive numbers, got {list(weights)}")
    return tuple(float(w) for w in weights)


def _sizes_and_center(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return width, height, and center (x, y) of xyxy boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return width, height, x1 + 0.5 * width, y1 + 0.5 * height


def _split_predictions(deltas: Tensor, dim: int) -> Tensor:
    """Reshape ``(..., k * dim)`` deltas of any type to ``(..., k, dim)`` float32."""
    if deltas.shape[-1] % dim:
        raise ValueError(f"deltas must have a multiple of {dim} columns, got {tuple(deltas.shape)}")
    split: Tensor = deltas.float().unflatten(-1, (deltas.shape[-1] // dim, dim))
    return split
