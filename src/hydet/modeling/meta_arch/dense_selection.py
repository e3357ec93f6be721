"""Of the scores of all classes at all places, the few detections that remain.

N images, A anchors a cell, R = H * W * A anchors on a level, K classes, C candidates an image over all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.layers import batched_nms
from hydet.structures import Boxes, Instances

__all__: list[str] = []


def by_place(predictions: Tensor, num_values: int) -> Tensor:
    """View a head's output ``(N, A * V, H, W)`` as ``(N, H, W, A, V)``, without a copy."""
    return predictions.unflatten(1, (-1, num_values)).permute(0, 3, 4, 1, 2)


def by_anchor(predictions: Tensor, num_values: int) -> Tensor:
    """Reorder a head's output ``(N, A * V, H, W)`` to ``(N, R, V)``."""
    return by_place(predictions, num_values).flatten(1, 3)


def pick(values: Tensor, rows: Tensor) -> Tensor:
    """Of ``(N, H, W, A, V)`` or ``(N, R, V)`` values, those of ``(N, k)`` anchors: ``(N, k, V)``."""
    image = torch.arange(values.shape[0], device=values.device)[:, None]
    if values.ndim == 3:
        return values[image, rows]
    width, anchors = values.shape[2:4]
    return values[image, rows // (width * anchors), rows // anchors % width, rows % anchors]


def top_rows(best: Tensor, k: int) -> Tensor:
    """``(N, min(k, R))`` anchors whose best class scores ``(N, R)`` highest; NaN is lowest.

    The k best pairs of anchor and class are all at these anchors, so no other scores need be sorted.
    """
    return best.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).topk(
        min(k, best.shape[1]), dim=1
    )[1]


def top_pairs(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best pairs of anchor and class.

    Args:
        scores: ``(N, rows, K)``.
        k: at most so many pairs.

    Returns:
        ``(N, k)`` scores, rows and classes.
    """
    num_classes = scores.shape[2]
    flat = scores.flatten(1).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    found, pair = flat.topk(min(k, flat.shape[1]), dim=1)
    return found, pair // num_classes, pair % num_classes


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    num_classes: int,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> list[Instances]:
    """Filter, suppress and rank the candidates of all images together.

    Nothing is removed before the very end: what must go gets the score -inf, so shapes do not depend on the data and
    the device is waited for only once, for the number of detections of each image.

    Args:
        boxes: ``(N, C, 4)``, not clipped; non-finite ones are dropped.
        scores: ``(N, C)``; kept if strictly greater than ``score_threshold``.
        classes: ``(N, C)``; boxes of different classes do not suppress one another.
        image_sizes: N pairs (height, width).
        num_classes: K.
        score_threshold: of a detection.
        nms_threshold: a box goes if its IoU with a better one of its image and class is greater.
        max_detections: per image; negative for all.

    Returns:
        Per image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, by descending score.
    """
    finite = boxes.isfinite().all(dim=2)
    boxes = torch.where(finite[..., None], boxes, 0.0)
    scores = torch.where(finite & (scores > score_threshold), scores, -torch.inf)
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    groups = image * num_classes + classes  # (N, C)
    kept = batched_nms(boxes.flatten(0, 1), scores.flatten(), groups.flatten(), nms_threshold)
    survives = torch.zeros_like(scores, dtype=torch.bool).flatten().index_fill(0, kept, True)
    ranked = torch.where(survives.view_as(scores), scores, -torch.inf)
    ranked, order = ranked.sort(dim=1, descending=True, stable=True)
    if max_detections >= 0:
        ranked, order = ranked[:, :max_detections], order[:, :max_detections]
    boxes, classes = boxes[image, order], classes[image, order]
    counts = (ranked > -torch.inf).sum(dim=1).tolist()
    return [
        Instances(
            size,
            pred_boxes=Boxes(boxes[i, : counts[i]]),
            scores=ranked[i, : counts[i]],
            pred_classes=classes[i, : counts[i]],
        )
        for i, size in enumerate(image_sizes)
    ]
