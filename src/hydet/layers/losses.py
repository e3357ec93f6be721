"""Losses on boxes and classes.

Reductions are ``none``, ``mean`` and ``sum``; any other raises ValueError. The mean over zero elements is 0 and stays connected to the inputs: a NaN would spoil the weights, and a constant would
leave parameters without gradients, which makes DistributedDataParallel hang.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ciou_loss", "diou_loss", "giou_loss", "sigmoid_focal_loss", "smooth_l1_loss"]


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if loss.numel() > 0 else loss.sum() * 0.0
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float, reduction: str = "none") -> Tensor:
    """Compute the smooth L1 loss: quadratic below ``beta`` and linear above (Girshick 2015, arXiv:1504.08083).

    Args:
        input: predictions of any shape.
        target: same shape as ``input``.
        beta: absolute difference from which on the loss is linear. Below 1e-5 the loss is plain L1, since ``x**2 / beta`` would overflow.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        Losses in the shape of ``input``, or a scalar if reduced.
    """
    difference = (input - target).abs()
    if beta >= 1e-5:
        difference = torch.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)
    return _reduce(difference, reduction)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = -1, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Compute the focal loss on logits (Lin et al. 2017, arXiv:1708.02002).

    Args:
        inputs: logits of any shape; computed in float32.
        targets: 0 or 1, same shape.
        alpha: weight of positives; negatives get ``1 - alpha``. A negative ``alpha`` disables the weights.
        gamma: exponent of the modulating factor, which reduces the loss of easy examples.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        float32 losses in the shape of ``inputs``, or a scalar if reduced.
    """
    inputs, targets = inputs.float(), targets.float()
    cross_entropy = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    probability = inputs.sigmoid()
    p_target = probability * targets + (1 - probability) * (1 - targets)
    loss = cross_entropy * (1 - p_target) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return _reduce(loss, reduction)


def _overlap(boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return IoU, union and enclosing box of matched pairs."""
    sides = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2])
    intersection = sides.clamp(min=0).prod(dim=-1)
    area1 = (boxes1[..., 2:] - boxes1[..., :2]).prod(dim=-1)
    area2 = (boxes2[..., 2:] - boxes2[..., :2]).prod(dim=-1)
    union = area1 + area2 - intersection
    enclosing = torch.cat(
        [torch.minimum(boxes1[..., :2], boxes2[..., :2]), torch.maximum(boxes1[..., 2:], boxes2[..., 2:])],
        dim=-1,
    )
    return intersection / (union + eps), union, enclosing


def giou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Compute 1 - GIoU of matched boxes (Rezatofighi et al. 2019, arXiv:1902.09630).

    Args:
        boxes1: ``(N, 4)`` xyxy.
        boxes2: ``(N, 4)`` xyxy.
        reduction: ``none``, ``mean`` or ``sum``.
        eps: added to denominators, to avoid division by 0.

    Returns:
        ``(N,)`` losses, or a scalar if reduced.
    """
    iou, union, enclosing = _overlap(boxes1, boxes2, eps)
    area = (enclosing[..., 2:] - enclosing[..., :2]).prod(dim=-1)
    return _reduce(1 - iou + (area - union) / (area + eps), reduction)


def _distance_term(boxes1: Tensor, boxes2: Tensor, enclosing: Tensor, eps: float) -> Tensor:
    diagonal = (enclosing[..., 2:] - enclosing[..., :2]).square().sum(dim=-1) + eps
    offset = (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:]) / 2
    return offset.square().sum(dim=-1) / diagonal


def diou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Compute the distance-IoU loss of matched boxes (Zheng et al. 2019, arXiv:1911.08287).

    The loss is 1 - IoU plus the squared distance of the centers over the squared diagonal of the enclosing box.

    Args:
        boxes1: ``(N, 4)`` xyxy.
        boxes2: ``(N, 4)`` xyxy.
        reduction: ``none``, ``mean`` or ``sum``.
        eps: added to denominators, to avoid division by 0.

    Returns:
        ``(N,)`` losses, or a scalar if reduced.
    """
    iou, _, enclosing = _overlap(boxes1, boxes2, eps)
    return _reduce(1 - iou + _distance_term(boxes1, boxes2, enclosing, eps), reduction)


def ciou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Compute the complete-IoU loss of matched boxes (Zheng et al. 2019, arXiv:1911.08287).

    The loss is ``diou_loss`` plus a term for the aspect ratio, whose weight carries no gradient. Heights below ``eps``
    are treated as ``eps``, so the loss of degenerate boxes stays finite.

    Args:
        boxes1: ``(N, 4)`` xyxy.
        boxes2: ``(N, 4)`` xyxy.
        reduction: ``none``, ``mean`` or ``sum``.
        eps: added to denominators, to avoid division by 0.

    Returns:
        ``(N,)`` losses, or a scalar if reduced.
    """
    iou, _, enclosing = _overlap(boxes1, boxes2, eps)
    w1, h1 = (boxes1[..., 2:] - boxes1[..., :2]).unbind(dim=-1)
    w2, h2 = (boxes2[..., 2:] - boxes2[..., :2]).unbind(dim=-1)
    angle = torch.atan(w2 / h2.clamp(min=eps)) - torch.atan(w1 / h1.clamp(min=eps))
    ratio = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        weight = ratio / (1 - iou + ratio + eps)
    return _reduce(1 - iou + _distance_term(boxes1, boxes2, enclosing, eps) + weight * ratio, reduction)
