"""Selection of detections: score threshold, clip, suppression per class, top-k per image.

N images, R regions per image, K classes, G boxes per region (K, or 1 for all classes), D numbers per box, C candidates
per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hydet.structures import Boxes, Instances, RotatedBoxes
from hydet.structures.precision import at_least_float32

from .suppression import ImageSizes, SelectedBoxes, clip_to_images, is_filled, select_boxes
from .top_k import top_k

__all__ = ["fast_rcnn_inference", "fast_rcnn_inference_rotated"]

# An R-CNN with 80 classes and a threshold of 0.05 has a few hundred candidates in a crowded image.
MAX_CANDIDATES = 4096


def fast_rcnn_inference(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    *,
    min_box_size: float = 0.0,
    class_agnostic_nms: bool = False,
) -> tuple[list[Instances], list[Tensor]]:
    """Select the detections of a box head.

    Args:
        boxes: per image, ``(R_i, K * 4)`` with one box per class, or ``(R_i, 4)`` with one box for all classes.
        scores: per image, ``(R_i, K + 1)``, background last.
        image_shapes: per image, (height, width); boxes are clipped to it.
        score_thresh: only higher scores become detections.
        nms_thresh: a box is dropped if its IoU with a better box of its class is greater.
        topk_per_image: number of detections per image; negative for all.
        min_box_size: in pixels; boxes with a shorter side after clipping are dropped.
        class_agnostic_nms: a box also suppresses boxes of other classes.

    Returns:
        Per image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes`` by descending score, and the
        ``(n_i,)`` rows of ``boxes`` that they come from. A row with a non-finite number, in its boxes or in any score,
        gives no detection.

    Raises:
        ValueError: if shapes do not fit.

    Row indices refer to the input. The reference counts rows after it has dropped non-finite ones.
    """
    return _select(
        boxes,
        scores,
        image_shapes,
        score_thresh,
        nms_thresh,
        topk_per_image,
        Boxes,
        min_box_size=min_box_size,
        class_agnostic_nms=class_agnostic_nms,
    )


def fast_rcnn_inference_rotated(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Select the detections of a rotated box head; see ``fast_rcnn_inference``.

    Args:
        boxes: per image, ``(R_i, K * 5)`` or ``(R_i, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise).
        scores: per image, ``(R_i, K + 1)``, background last.
        image_shapes: per image, (height, width); boxes within a degree of upright are clipped to it.
        score_thresh: only higher scores become detections.
        nms_thresh: a box is dropped if its rotated IoU with a better box of its class is greater.
        topk_per_image: number of detections per image; negative for all.

    Returns:
        Per image, ``Instances`` whose ``pred_boxes`` are ``RotatedBoxes`` with angles in [-180, 180), and the rows of
        ``boxes`` that they come from.
    """
    return _select(boxes, scores, image_shapes, score_thresh, nms_thresh, topk_per_image, RotatedBoxes)


def select_region_boxes(
    boxes: Tensor,
    scores: Tensor,
    counts: Tensor | None,
    image_sizes: ImageSizes,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    min_box_size: float = 0.0,
    class_agnostic_nms: bool = False,
    count_exported: bool = False,
) -> SelectedBoxes:
    """Select detections among the regions of a batch; regions with a non-finite number give none.

    A compiled program admits at most ``MAX_CANDIDATES`` pairs of region and class per image to the
    suppression, because it cannot count them.

    Args:
        boxes: ``(N, R, G, D)``.
        scores: ``(N, R, K + 1)``, background last.
        counts: ``(N,)`` number of regions per image, the others are padding; None if there is no padding.
        image_sizes: N pairs (height, width); boxes are clipped to them.
        score_threshold: only pairs with a higher score are candidates.
        nms_threshold: a box is dropped if its IoU with a better box of its image and class is greater.
        max_detections: number of detections per image; negative for all.
        min_box_size: see ``select_class_boxes``.
        class_agnostic_nms: see ``select_class_boxes``.
        count_exported: count the pairs in a program of ``torch.export``, which then has sizes that depend on data.

    Returns:
        See ``select_class_boxes``.
    """
    boxes, scores = boxes.float(), at_least_float32(scores)
    valid = boxes.isfinite().all(dim=3).all(dim=2) & scores.isfinite().all(dim=2)
    if counts is not None:
        valid &= is_filled(counts, valid.shape[1])
    is_counted = not torch.compiler.is_compiling() or (count_exported and torch.compiler.is_exporting())
    return select_class_boxes(
        boxes,
        scores[..., :-1],
        valid,
        image_sizes,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        max_candidates=None if is_counted else MAX_CANDIDATES,
        min_box_size=min_box_size,
        class_agnostic_nms=class_agnostic_nms,
    )


def select_class_boxes(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    image_sizes: ImageSizes,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    max_candidates: int | None = None,
    min_box_size: float = 0.0,
    class_agnostic_nms: bool = False,
) -> SelectedBoxes:
    """Select detections among all pairs of a region and a class.

    Args:
        boxes: ``(N, R, G, D)``.
        scores: ``(N, R, K)`` of the foreground classes, finite where valid.
        valid: ``(N, R)`` bool, False for padding and for regions to ignore.
        image_sizes: N pairs (height, width); boxes are clipped to them.
        score_threshold: only pairs with a higher score are candidates.
        nms_threshold: a box is dropped if its IoU with a better box of its image and class is greater.
        max_detections: number of detections per image; negative for all.
        max_candidates: number of candidates per image that enter the suppression, the best ones. None admits all that
            exceed the threshold; counting them waits for the device.
        min_box_size: in pixels; boxes with a shorter side after clipping are dropped before the suppression. With 0,
            empty boxes are selected too.
        class_agnostic_nms: a box also suppresses boxes of other classes.

    Returns:
        The selected boxes; ``groups`` are their classes and ``indices`` the pairs: region * K + class.
    """
    num_classes = scores.shape[2]
    passes = valid[..., None] & (scores > score_threshold)  # (N, R, K)
    if max_candidates is None:
        # Not int(), which would become a constant of an exported program.
        max_candidates = cast(int, passes.sum(dim=(1, 2)).amax().item())
    scores = torch.where(passes, scores, -torch.inf).flatten(1)  # (N, R * K)
    # Candidates stay in the order of regions and classes: among equal scores, the suppression prefers the first.
    pairs = top_k(scores, max_candidates).sort(dim=1).values  # (N, C)
    scores = scores.gather(1, pairs)
    image = torch.arange(pairs.shape[0], device=pairs.device)[:, None]
    regions, classes = pairs // num_classes, pairs % num_classes
    candidates = boxes[image, regions, classes if boxes.shape[2] > 1 else 0]  # (N, C, D)
    candidates = clip_to_images(candidates, image_sizes)
    admitted = scores > -torch.inf
    if min_box_size > 0:
        sides = candidates[..., 2:4] if boxes.shape[3] == 5 else candidates[..., 2:] - candidates[..., :2]
        admitted &= (sides >= min_box_size).all(dim=2)
    selected = select_boxes(
        candidates,
        scores,
        torch.zeros_like(classes) if class_agnostic_nms else classes,
        admitted,
        iou_threshold=nms_threshold,
        max_outputs=max_detections,
    )
    return selected._replace(
        groups=classes.gather(1, selected.indices), indices=pairs.gather(1, selected.indices)
    )


def select_labeled_boxes(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    factors: Tensor | None = None,
) -> SelectedBoxes:
    """Select detections among boxes that have one class each, without waiting for the device.

    Filters only mark candidates as invalid, so no shape depends on the data.

    Args:
        boxes: ``(N, C, D)``; they are not clipped, and non-finite boxes are dropped.
        scores: ``(N, C)``.
        classes: ``(N, C)``; boxes of different classes do not suppress one another.
        score_threshold: only higher scores become detections.
        nms_threshold: a box is dropped if its IoU with a better box of its image and class is greater.
        max_detections: number of detections per image; negative for all.
        factors: ``(N, C)``, multiplied into the scores after the threshold.
    """
    valid = boxes.isfinite().all(dim=2) & (scores > score_threshold)
    if factors is not None:
        scores = scores * factors
    return select_boxes(
        boxes, scores, classes, valid, iou_threshold=nms_threshold, max_outputs=max_detections
    )


def to_instances(selected: SelectedBoxes, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    """Convert selected boxes to ``Instances`` without padding; waits for the device once, for the counts.

    Args:
        selected: boxes of N images, whose ``groups`` are classes.
        image_sizes: N pairs (height, width).

    Returns:
        Per image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, by descending score.
    """
    container = Boxes if selected.boxes.shape[2] == 4 else RotatedBoxes
    return [
        Instances(
            size,
            pred_boxes=container(selected.boxes[i, :count]),
            scores=selected.scores[i, :count],
            pred_classes=selected.groups[i, :count],
        )
        for i, (size, count) in enumerate(zip(image_sizes, selected.counts.tolist(), strict=True))
    ]


def _select(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    container: type[Boxes],
    *,
    min_box_size: float = 0.0,
    class_agnostic_nms: bool = False,
) -> tuple[list[Instances], list[Tensor]]:
    """Pad the regions of all images to one batch, and select among them."""
    if not len(boxes) == len(scores) == len(image_shapes):
        raise ValueError(
            f"got boxes of {len(boxes)}, scores of {len(scores)} and shapes of {len(image_shapes)} images"
        )
    if len(boxes) == 0:
        return [], []
    counts = [rows.shape[0] for rows in boxes]
    if counts != [rows.shape[0] for rows in scores]:
        raise ValueError(f"rows of boxes: {counts}, rows of scores: {[rows.shape[0] for rows in scores]}")
    dim, num_classes = container.box_dim, scores[0].shape[1] - 1
    widths = {rows.shape[1] for rows in boxes}
    if not widths <= {dim, num_classes * dim}:
        raise ValueError(f"boxes need {dim} or {num_classes} * {dim} columns, got {sorted(widths)}")
    if len(widths) > 1:  # only some images have one box per class
        boxes = [rows.repeat(1, num_classes) if rows.shape[1] == dim else rows for rows in boxes]

    has_padding = any(count != counts[0] for count in counts)
    selected = select_region_boxes(
        _to_batch(boxes).unflatten(2, (-1, dim)),
        _to_batch(scores),
        torch.tensor(counts, device=boxes[0].device) if has_padding else None,
        image_shapes,
        score_threshold=score_thresh,
        nms_threshold=nms_thresh,
        max_detections=topk_per_image,
        min_box_size=min_box_size,
        class_agnostic_nms=class_agnostic_nms,
        count_exported=True,
    )
    results = to_instances(selected, image_shapes)
    region_rows = selected.indices // num_classes  # (N, K)
    return results, [
        rows_i[: results_i.scores.shape[0]] for rows_i, results_i in zip(region_rows, results, strict=True)
    ]


def _to_batch(rows: Sequence[Tensor]) -> Tensor:
    """Stack ``(R_i, V)`` tensors of N images to ``(N, R, V)``, padded with zeros."""
    return rows[0][None] if len(rows) == 1 else pad_sequence(list(rows), batch_first=True)
