"""Non-maximum suppression of a whole batch, of upright or rotated boxes, with shapes known beforehand.

N images, C candidates an image, D numbers a box (4, or 5 if rotated), K boxes that remain at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.layers import batched_nms, batched_nms_rotated
from hydet.layers.dense_ops import nms_padded

__all__: list[str] = []


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    """The best boxes of each image that no better one of their group overlaps.

    Args:
        boxes: ``(N, C, D)``, finite where valid.
        scores: ``(N, C)``.
        groups: ``(N, C)`` levels or classes, from 0.
        valid: ``(N, C)`` bool; the others neither remain nor suppress.
        iou_threshold: a box goes if its IoU with a better one is greater.
        max_outputs: at most so many of each image; negative for all.

    Returns:
        ``(N, K)`` indices by descending score, of which ``(N,)`` counts mean something.
    """
    limit = boxes.shape[1] if max_outputs < 0 else min(max_outputs, boxes.shape[1])
    if boxes.shape[2] == 4 and not torch.compiler.is_exporting():  # exported programs run without our ops
        return nms_padded(boxes, scores, iou_threshold, groups=groups, valid=valid, max_outputs=limit)
    return _suppress_flat(boxes, scores, groups, valid, iou_threshold, limit)


def _suppress_flat(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """One suppression of all boxes of all images in a row; what is not valid comes last, as empty boxes."""
    num_images, num_candidates, dim = boxes.shape
    if num_images == 0 or num_candidates == 0:
        empty = torch.zeros(num_images, limit, dtype=torch.int64, device=boxes.device)
        return empty, empty.new_zeros(num_images)
    scores = torch.where(valid, scores, -torch.inf)
    boxes = torch.where(valid[..., None], boxes, 0.0)
    image = torch.arange(num_images, device=boxes.device)[:, None]
    groups = image * (groups.amax() + 1) + groups
    function = batched_nms if dim == 4 else batched_nms_rotated
    kept = function(boxes.flatten(0, 1), scores.flatten(), groups.flatten(), iou_threshold)
    survives = torch.zeros_like(valid).flatten().index_fill(0, kept, True).view_as(valid) & valid
    ranked = torch.where(survives, scores, -torch.inf)
    order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :limit]
    return order, survives.sum(dim=1).clamp(max=limit)
