"""Selection of RPN proposals: top-k per level, clip, size filter, suppression.

N images, L levels, R_i anchors on level i, C candidates per image over all levels, D numbers per box.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.structures import Boxes, Instances, RotatedBoxes

from .suppression import ImageSizes, SelectedBoxes, clip_to_images, select_boxes
from .top_k import gather_rows, top_k

__all__ = ["NonFiniteProposalsError", "find_top_rpn_proposals", "find_top_rrpn_proposals"]


class NonFiniteProposalsError(FloatingPointError):
    """Boxes or scores of an RPN became infinite or NaN in training.

    Attributes:
        image_indices: positions in the batch of the images with such boxes or scores.
    """

    def __init__(self, message: str, image_indices: Sequence[int]) -> None:
        super().__init__(message)
        self.image_indices = tuple(image_indices)


def find_top_rpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Select RPN proposals: top-k per level, clip, filter by size, suppress, top-k per image.

    Args:
        proposals: per level, ``(N, R_i, 4)`` boxes in pixels of the padded input.
        pred_objectness_logits: per level, ``(N, R_i)``.
        image_sizes: N pairs (height, width).
        nms_thresh: a box is dropped if its IoU with a better box of its image and level is greater.
        pre_nms_topk: number of boxes per level and image before suppression.
        post_nms_topk: number of boxes per image after suppression.
        min_box_size: in pixels; after clipping, both sides of a box must be strictly longer.
        training: True makes a non-finite prediction an error; False drops it.

    Returns:
        Per image, ``Instances`` with ``proposal_boxes`` and ``objectness_logits``, by descending score.

    Raises:
        NonFiniteProposalsError: in training, if a prediction is infinite or NaN; it names the images.
    """
    top = [top_k(level, pre_nms_topk) for level in pred_objectness_logits]
    boxes = [gather_rows(level, index) for level, index in zip(proposals, top, strict=True)]
    scores = [level.gather(1, index) for level, index in zip(pred_objectness_logits, top, strict=True)]
    selected, num_non_finite = select_proposal_boxes(
        torch.cat(boxes, dim=1),
        torch.cat(scores, dim=1),
        torch.cat([torch.full_like(index, i) for i, index in enumerate(top)], dim=1),
        image_sizes,
        nms_thresh=nms_thresh,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
    )
    return to_proposals(selected, num_non_finite, image_sizes, training=training)


def find_top_rrpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Select proposals of a rotated RPN. Only boxes within a degree of upright are clipped.

    Args:
        proposals: per level, ``(N, R_i, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise).
        pred_objectness_logits: per level, ``(N, R_i)``.
        image_sizes: N pairs (height, width).
        nms_thresh: a box is dropped if its rotated IoU with a better box of its image and level is greater.
        pre_nms_topk: number of boxes per level and image before suppression.
        post_nms_topk: number of boxes per image after suppression.
        min_box_size: in pixels; after clipping, both sides of a box must be strictly longer.
        training: True makes a non-finite prediction an error; False drops it.

    Returns:
        Per image, ``Instances`` with ``proposal_boxes`` (``RotatedBoxes``, angles in [-180, 180)) and
        ``objectness_logits``, by descending score.

    Raises:
        NonFiniteProposalsError: in training, if a prediction is infinite or NaN; it names the images.
    """
    return find_top_rpn_proposals(
        proposals,
        pred_objectness_logits,
        image_sizes,
        nms_thresh,
        pre_nms_topk,
        post_nms_topk,
        min_box_size,
        training,
    )


def select_proposal_boxes(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    image_sizes: ImageSizes,
    *,
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
) -> tuple[SelectedBoxes, Tensor]:
    """Clip, filter and suppress the candidates of all images together, without waiting for the device.

    Filters only mark candidates as invalid, so no shape depends on the data.

    Args:
        boxes: ``(N, C, D)``.
        scores: ``(N, C)``.
        levels: ``(N, C)``; boxes of different levels do not suppress one another.
        image_sizes: N pairs (height, width).
        nms_thresh: a box is dropped if its IoU with a better box of its image and level is greater.
        post_nms_topk: number of boxes per image.
        min_box_size: in pixels; after clipping, both sides of a box must be strictly longer.

    Returns:
        The selected boxes, and the ``(N,)`` number of candidates per image whose box or score is not finite.
    """
    is_finite = boxes.isfinite().all(dim=2) & scores.isfinite()
    boxes = torch.where(is_finite[..., None], boxes.float(), 0.0)
    boxes = clip_to_images(boxes, image_sizes)
    sides = boxes[..., 2:] - boxes[..., :2] if boxes.shape[2] == 4 else boxes[..., 2:4]
    valid = is_finite & (sides > min_box_size).all(dim=2)
    selected = select_boxes(
        boxes, scores.float(), levels, valid, iou_threshold=nms_thresh, max_outputs=post_nms_topk
    )
    return selected, (~is_finite).sum(dim=1)


def to_proposals(
    selected: SelectedBoxes, num_non_finite: Tensor, image_sizes: Sequence[tuple[int, int]], *, training: bool
) -> list[Instances]:
    """Convert selected boxes to ``Instances`` without padding; waits for the device once, for the counts.

    Args:
        selected: boxes of N images, and their logits.
        num_non_finite: ``(N,)`` number of candidates that were dropped because they are not finite.
        image_sizes: N pairs (height, width).
        training: True makes a non-finite candidate an error.

    Returns:
        See ``find_top_rpn_proposals``.

    Raises:
        NonFiniteProposalsError: in training, if a candidate is infinite or NaN; it names the images.
    """
    counts, num_bad = torch.stack([selected.counts, num_non_finite]).tolist()
    if training and any(num_bad):
        raise _non_finite_error(num_bad)
    container = Boxes if selected.boxes.shape[2] == 4 else RotatedBoxes
    return [
        Instances(
            size,
            proposal_boxes=container(selected.boxes[i, : counts[i]]),
            objectness_logits=selected.scores[i, : counts[i]],
        )
        for i, size in enumerate(image_sizes)
    ]


def _non_finite_error(num_bad: Sequence[int]) -> NonFiniteProposalsError:
    images = [i for i, count in enumerate(num_bad) if count]
    counts = ", ".join(f"{num_bad[i]} in image {i} of the batch" for i in images)
    return NonFiniteProposalsError(
        f"predicted boxes or scores are infinite or NaN ({counts}); training has diverged, or the input is not finite",
        images,
    )
