"""Of all boxes that an RPN predicts, the few that go on.

N images, L levels, R_i anchors on level i, K candidates an image over all levels, D numbers a box.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.modeling.suppression import suppress
from hydet.structures import Boxes, Instances, RotatedBoxes

__all__ = ["NonFiniteProposalsError", "find_top_rpn_proposals", "find_top_rrpn_proposals"]

UPRIGHT_DEGREES = 1.0


class NonFiniteProposalsError(FloatingPointError):
    """Boxes or scores of an RPN became infinite or NaN while training.

    Attributes:
        image_indices: positions in the batch of the images they belong to.
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
    """The best boxes of each image: top scores of each level, clipped, large enough, without near duplicates.

    Args:
        proposals: per level, ``(N, R_i, 4)`` boxes in pixels of the padded input.
        pred_objectness_logits: per level, ``(N, R_i)``.
        image_sizes: N pairs (height, width).
        nms_thresh: a box goes if its IoU with a better one of its image and level is greater.
        pre_nms_topk: how many enter the suppression, per level.
        post_nms_topk: how many remain, per image.
        min_box_size: in pixels; both sides of a box must be strictly longer after clipping.
        training: whether a non-finite prediction is an error instead of being dropped.

    Returns:
        Per image, ``Instances`` with ``proposal_boxes`` and ``objectness_logits``, by descending score.

    Raises:
        NonFiniteProposalsError: in training, naming the images.
    """
    chosen = top_indices(pred_objectness_logits, pre_nms_topk)
    return select_proposals(
        *candidates(proposals, pred_objectness_logits, chosen),
        image_sizes,
        nms_thresh=nms_thresh,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
        training=training,
    )


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
    """``find_top_rpn_proposals`` for rotated boxes, of which only the nearly upright ones are clipped.

    Args:
        proposals: per level, ``(N, R_i, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise).
        pred_objectness_logits: as there, like all other arguments.
        image_sizes: N pairs (height, width).
        nms_thresh: limit of the rotated IoU.
        pre_nms_topk: per level.
        post_nms_topk: per image.
        min_box_size: in pixels.
        training: whether a non-finite prediction is an error.

    Returns:
        Per image, ``Instances`` with ``proposal_boxes`` (``RotatedBoxes``, angles in [-180, 180)) and
        ``objectness_logits``, by descending score.

    Raises:
        NonFiniteProposalsError: in training, naming the images.
    """
    chosen = top_indices(pred_objectness_logits, pre_nms_topk)
    return select_proposals(
        *candidates(proposals, pred_objectness_logits, chosen),
        image_sizes,
        nms_thresh=nms_thresh,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
        training=training,
    )


def top_indices(logits: Sequence[Tensor], k: int) -> list[Tensor]:
    """Per level, ``(N, min(k, R_i))`` indices of the highest ``(N, R_i)`` logits, best first."""
    return [level.topk(min(k, level.shape[1]), dim=1).indices for level in logits]


def candidates(
    boxes: Sequence[Tensor], logits: Sequence[Tensor], chosen: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The chosen boxes of all levels side by side: ``(N, K, D)`` boxes, ``(N, K)`` scores and ``(K,)`` levels."""
    picked = [gather_rows(b, index) for b, index in zip(boxes, chosen, strict=True)]
    scores = [level.gather(1, index) for level, index in zip(logits, chosen, strict=True)]
    return torch.cat(picked, dim=1), torch.cat(scores, dim=1), level_numbers(chosen)


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """``(N, R, D)`` and ``(N, k)`` to ``(N, k, D)``."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def level_numbers(chosen: Sequence[Tensor]) -> Tensor:
    """``(K,)`` level that each candidate comes from."""
    device = chosen[0].device
    return torch.cat([torch.full((c.shape[1],), i, device=device) for i, c in enumerate(chosen)])


def select_proposals(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Clip, filter, suppress and rank the candidates of all images together.

    Nothing is removed before the very end, so shapes do not depend on the data and the device is waited for only
    once, for the number of boxes of each image.

    Args:
        boxes: ``(N, K, D)``, D is 4 or 5 (rotated).
        scores: ``(N, K)``.
        levels: ``(K,)``; boxes of different levels do not suppress one another.
        image_sizes: N pairs (height, width).
        nms_thresh: see ``find_top_rpn_proposals``, as the rest.
        post_nms_topk: per image.
        min_box_size: in pixels.
        training: whether a non-finite prediction is an error.
    """
    finite = boxes.isfinite().all(dim=2) & scores.isfinite()
    width, height = _limits(image_sizes, boxes)
    boxes = torch.where(finite[..., None], boxes.float(), 0.0)
    container: type[Boxes]
    if boxes.shape[2] == 4:
        container, boxes = Boxes, _clipped(boxes, width, height)
        sides = boxes[..., 2:] - boxes[..., :2]
    else:
        container, boxes = RotatedBoxes, _clipped_rotated(boxes, width, height)
        sides = boxes[..., 2:4]
    valid = finite & (sides > min_box_size).all(dim=2)
    scores = torch.where(valid, scores.float(), 0.0)
    order, counts = suppress(boxes, scores, levels.expand_as(scores), valid, nms_thresh, post_nms_topk)
    boxes, scores = gather_rows(boxes, order), scores.gather(1, order)

    counts, num_bad = torch.stack([counts, (~finite).sum(dim=1)]).tolist()
    if training and any(num_bad):
        raise _non_finite(num_bad)
    return [
        Instances(
            size, proposal_boxes=container(boxes[i, : counts[i]]), objectness_logits=scores[i, : counts[i]]
        )
        for i, size in enumerate(image_sizes)
    ]


def _limits(image_sizes: Sequence[tuple[int, int]], boxes: Tensor) -> tuple[int, int] | tuple[Tensor, Tensor]:
    """Width and height to clip ``(N, K)`` coordinates to: numbers if all images agree, else ``(N, 1)`` tensors."""
    if len(set(image_sizes)) == 1:
        height, width = image_sizes[0]
        return width, height
    height_width = boxes.new_tensor(image_sizes).view(-1, 2, 1)
    return height_width[:, 1], height_width[:, 0]


def _clipped(boxes: Tensor, width: int | Tensor, height: int | Tensor) -> Tensor:
    x1, y1, x2, y2 = (v.clamp(min=0) for v in boxes.unbind(-1))
    return torch.stack(
        [x1.clamp(max=width), y1.clamp(max=height), x2.clamp(max=width), y2.clamp(max=height)], dim=-1
    )


def _clipped_rotated(boxes: Tensor, width: int | Tensor, height: int | Tensor) -> Tensor:
    """Angles in [-180, 180); boxes within a degree of upright clipped, without growing."""
    x, y, w, h, angle = boxes.unbind(-1)
    angle = (angle + 180.0) % 360.0 - 180.0
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)
    x1, y1, x2, y2 = _clipped(corners, width, height).unbind(-1)
    clipped = [(x1 + x2) / 2, (y1 + y2) / 2, torch.minimum(w, x2 - x1), torch.minimum(h, y2 - y1), angle]
    upright = angle.abs() <= UPRIGHT_DEGREES
    return torch.where(upright[..., None], torch.stack(clipped, -1), torch.stack([x, y, w, h, angle], -1))


def _non_finite(num_bad: Sequence[int]) -> NonFiniteProposalsError:
    images = [i for i, count in enumerate(num_bad) if count]
    found = ", ".join(f"{num_bad[i]} of image {i} in the batch" for i in images)
    return NonFiniteProposalsError(
        f"predicted boxes or scores are infinite or NaN ({found}); training has diverged, or the input is not finite",
        images,
    )
