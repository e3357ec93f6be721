"""From scored boxes to detections: threshold, suppression within each class, the best of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hydet.layers import batched_nms, batched_nms_rotated
from hydet.structures import Boxes, Instances, RotatedBoxes

__all__ = ["fast_rcnn_inference", "fast_rcnn_inference_rotated"]

UPRIGHT_DEGREES = 1.0


def fast_rcnn_inference(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Pick detections, all images and classes together.

    Args:
        boxes: per image, ``(R_i, K * 4)`` with a box for each class, or ``(R_i, 4)`` with one for all.
        scores: per image, ``(R_i, K + 1)``, background last.
        image_shapes: per image, (height, width); boxes are clipped to it.
        score_thresh: only scores above it count.
        nms_thresh: a box goes if its IoU with a better one of its class is greater.
        topk_per_image: how many remain; negative for all.

    Returns:
        Per image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes`` by descending score, and their
        ``(n_i,)`` rows in ``boxes``. A row with a number that is not finite, also of the background, gives nothing.

    Raises:
        ValueError: if shapes do not fit.

    The rows count all rows of the input (in the reference they are off after one that was not finite).
    """
    return _infer(boxes, scores, image_shapes, score_thresh, nms_thresh, topk_per_image, Boxes)


def fast_rcnn_inference_rotated(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """``fast_rcnn_inference`` for ``(R_i, K * 5)`` or ``(R_i, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise).

    Angles come out in [-180, 180); only boxes within a degree of upright are clipped. ``pred_boxes`` are
    ``RotatedBoxes``.
    """
    return _infer(boxes, scores, image_shapes, score_thresh, nms_thresh, topk_per_image, RotatedBoxes)


# N images, R rows over all of them, K classes, G boxes a row (K, or 1 for all classes), D numbers a box, M candidates.


def _infer(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    container: type[Boxes],
) -> tuple[list[Instances], list[Tensor]]:
    if not len(boxes) == len(scores) == len(image_shapes):
        raise ValueError(
            f"boxes of {len(boxes)}, scores of {len(scores)} and shapes of {len(image_shapes)} images"
        )
    if len(boxes) == 0:
        return [], []
    counts = [found.shape[0] for found in boxes]
    if counts != [found.shape[0] for found in scores]:
        raise ValueError(f"rows of boxes: {counts}, rows of scores: {[found.shape[0] for found in scores]}")
    dim, num_classes = container.box_dim, scores[0].shape[1] - 1
    widths = {found.shape[1] for found in boxes}
    if not widths <= {dim, num_classes * dim}:
        raise ValueError(f"boxes need {dim} or {num_classes} * {dim} columns, got {sorted(widths)}")
    if len(widths) > 1:  # some images have a box for each class
        boxes = [found.repeat(1, num_classes) if found.shape[1] == dim else found for found in boxes]
    every_box = torch.cat(list(boxes)).float().unflatten(1, (-1, dim))  # (R, G * D) -> (R, G, D)
    every_score = torch.cat(list(scores))  # (R, K + 1)
    every_score = every_score.to(torch.promote_types(every_score.dtype, torch.float32))

    finite = every_box.isfinite().flatten(1).all(dim=1) & every_score.isfinite().all(dim=1)
    row, category = ((every_score[:, :-1] > score_thresh) & finite[:, None]).nonzero(as_tuple=True)  # (M,)
    image = _numbers(counts, row.device)[row]
    found = every_box[row, category if every_box.shape[1] > 1 else 0]  # (M, D)
    score = every_score[row, category]

    limits = found.new_tensor([(w, h, w, h) for h, w in image_shapes])[image]  # (M, 4)
    upright = container is Boxes
    found = _clipped(found, limits) if upright else _clipped_rotated(found, limits)
    suppress: Callable[[Tensor, Tensor, Tensor, float], Tensor] = (
        batched_nms if upright else batched_nms_rotated
    )
    kept = suppress(found, score, image * num_classes + category, nms_thresh)
    kept = kept[image[kept].argsort(stable=True)]  # image after image, each by descending score

    results, rows, first = [], [], 0
    images = torch.arange(len(counts), device=row.device)
    per_image = (image[kept] == images[:, None]).sum(dim=1).tolist()  # the shape of bincount depends on data
    for shape, count, own in zip(image_shapes, counts, kept.split(per_image), strict=True):
        if topk_per_image >= 0:
            own = own[:topk_per_image]
        results.append(
            Instances(shape, pred_boxes=container(found[own]), scores=score[own], pred_classes=category[own])
        )
        rows.append(row[own] - first)
        first += count
    return results, rows


def _numbers(counts: Sequence[int], device: torch.device) -> Tensor:
    """``(R,)`` number of the image that each row belongs to."""
    return torch.cat([torch.full((n,), i, dtype=torch.int64, device=device) for i, n in enumerate(counts)])


def _clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), limits)


def _clipped_rotated(boxes: Tensor, limits: Tensor) -> Tensor:
    """Angles in [-180, 180); boxes within a degree of upright clipped, without growing."""
    center, size, angle = boxes[:, :2], boxes[:, 2:4], (boxes[:, 4:] + 180.0) % 360.0 - 180.0
    corners = _clipped(torch.cat([center - size / 2, center + size / 2], dim=1), limits)
    near, far = corners[:, :2], corners[:, 2:]
    upright = angle.abs() <= UPRIGHT_DEGREES
    center = torch.where(upright, (near + far) / 2, center)
    size = torch.where(upright, torch.minimum(size, far - near), size)
    return torch.cat([center, size, angle], dim=1)
