"""Of the scores of all classes at all places, the few detections that remain.

N images, A anchors a cell, R = H * W * A anchors on a level, K classes, C candidates an image over all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.modeling.suppression import suppress
from hydet.structures import Boxes, Instances

__all__: list[str] = []


def by_place(predictions: Tensor, num_values: int) -> Tensor:
    """View a head's output ``(N, A * V, H, W)`` as ``(N, H, W, A, V)``, without a copy."""
    return predictions.unflatten(1, (-1, num_values)).permute(0, 3, 4, 1, 2)


def by_anchor(predictions: Tensor, num_values: int) -> Tensor:
    """Reorder a head's output ``(N, A * V, H, W)`` to ``(N, R, V)``."""
    return by_place(predictions, num_values).flatten(1, 3)


def best_of_classes(predictions: Tensor, num_classes: int) -> Tensor:
    """Highest logit of each anchor: ``(N, A * K, H, W)`` to ``(N, R)``."""
    if predictions.stride(1) == 1:  # channels last: reduce what lies together, ten times faster
        return by_place(predictions, num_classes).amax(dim=4).flatten(1)
    return predictions.unflatten(1, (-1, num_classes)).amax(dim=2).permute(0, 2, 3, 1).flatten(1)


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
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> list[Instances]:
    """Filter, suppress and rank the candidates of all images together.

    Nothing is removed before the very end, so shapes do not depend on the data and the device is waited for only
    once, for the number of detections of each image.

    Args:
        boxes: ``(N, C, 4)``, not clipped; non-finite ones are dropped.
        scores: ``(N, C)``; kept if strictly greater than ``score_threshold``.
        classes: ``(N, C)``; boxes of different classes do not suppress one another.
        image_sizes: N pairs (height, width).
        score_threshold: of a detection.
        nms_threshold: a box goes if its IoU with a better one of its image and class is greater.
        max_detections: per image; negative for all.

    Returns:
        Per image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, by descending score.
    """
    finite = boxes.isfinite().all(dim=2)
    valid = finite & (scores > score_threshold)
    boxes = torch.where(finite[..., None], boxes, 0.0)
    scores = torch.where(valid, scores, 0.0)
    order, counts = suppress(boxes, scores, classes, valid, nms_threshold, max_detections)
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    boxes, scores, classes = boxes[image, order], scores[image, order], classes[image, order]
    num_found = counts.tolist()
    return [
        Instances(
            size,
            pred_boxes=Boxes(boxes[i, : num_found[i]]),
            scores=scores[i, : num_found[i]],
            pred_classes=classes[i, : num_found[i]],
        )
        for i, size in enumerate(image_sizes)
    ]
