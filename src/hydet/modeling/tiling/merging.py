"""Merging the detections of all tiles of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.modeling.selection.pooled import select_pooled
from hydet.structures import BitMasks, Instances, ROIMasks
from hydet.structures.box_ops import enclosing_boxes

from .cut_objects import find_fragments, is_cut
from .fusion import fuse
from .grid import Tile, shift_boxes

__all__ = ["merge_instances", "merge_proposals", "move_instances", "move_proposals"]

# Side of masks that a model has pasted into the tile and that are stored relative to their boxes again.
CROPPED_MASK_SIZE = 112


def merge_instances(
    detections: Sequence[Instances],
    tiles: Sequence[Tile],
    *,
    nms_thresh: float,
    match_thresh: float,
    topk: int,
) -> Instances:
    """Merge the detections of all tiles.

    An object that a tile's border has cut is replaced by the complete detection of another tile, which then has the
    higher score of both. Cut parts without a complete detection are joined to one. Suppression per class follows.

    Args:
        detections: per tile, as ``move_instances`` returns them.
        tiles: the tiles.
        nms_thresh: IoU above which the detection with the lower score is dropped.
        match_thresh: IoU of the common parts above which two detections show one object; see ``find_fragments``.
        topk: maximum number of detections; negative for all.

    Returns:
        Detections in the frame of the image by descending score; ``pred_masks`` are ``ROIMasks``.
    """
    pooled = Instances.cat(detections)
    boxes = _upright(pooled.pred_boxes.tensor)
    counts = torch.tensor([len(instances) for instances in detections], device=boxes.device)
    tile_indices = torch.arange(len(tiles), device=boxes.device).repeat_interleave(counts)
    tile_boxes = boxes.new_tensor(tiles)[tile_indices]
    cut = is_cut(boxes, tile_boxes, pooled.image_size)
    fragments = find_fragments(
        boxes, pooled.pred_classes, tile_indices, tile_boxes, cut, match_thresh=match_thresh
    )
    scores = pooled.scores.clone()
    is_left = torch.ones_like(cut)
    for part, complete in fragments.absorbed:
        scores[complete] = torch.maximum(scores[complete], pooled.scores[part])
        is_left[part] = False
    pooled.scores = scores
    fused = [fuse(pooled[group]) for group in fragments.groups]
    for group in fragments.groups:
        is_left[group] = False
    merged = Instances.cat([pooled[is_left], *fused])
    selected = select_pooled(
        merged.pred_boxes.tensor,
        merged.scores,
        merged.pred_classes,
        score_thresh=-torch.inf,  # the model has applied its own threshold
        nms_thresh=nms_thresh,
        topk=topk,
    )
    return merged[selected]


def merge_proposals(proposals: Sequence[Instances], *, nms_thresh: float, topk: int) -> Instances:
    """Suppress the proposals of all tiles together. Cut proposals stay as they are: they are many, and rough.

    Args:
        proposals: per tile, as ``move_proposals`` returns them.
        nms_thresh: IoU above which the proposal with the lower score is dropped.
        topk: maximum number of proposals; negative for all.
    """
    pooled = Instances.cat(proposals)
    logits = pooled.objectness_logits
    selected = select_pooled(
        pooled.proposal_boxes.tensor,
        logits,
        torch.zeros_like(logits, dtype=torch.int64),
        score_thresh=-torch.inf,
        nms_thresh=nms_thresh,
        topk=topk,
    )
    return pooled[selected]


def _upright(boxes: Tensor) -> Tensor:
    return enclosing_boxes(boxes) if boxes.shape[1] == 5 else boxes


def move_instances(instances: Instances, tile: Tile, image_size: tuple[int, int]) -> Instances:
    """Move the detections of a tile to the frame of the image.

    Args:
        instances: with ``pred_boxes``, ``scores`` and ``pred_classes``, and optionally ``pred_masks`` and
            ``pred_keypoints``; other fields are dropped.
        tile: the tile.
        image_size: (height, width) of the image.

    Returns:
        The same fields; masks that were pasted into the tile are ``ROIMasks``, which stay small.
    """
    boxes = instances.pred_boxes
    moved = Instances(
        image_size,
        pred_boxes=type(boxes)(shift_boxes(boxes.tensor, tile.x1, tile.y1)),
        scores=instances.scores,
        pred_classes=instances.pred_classes,
    )
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        if not isinstance(masks, ROIMasks):
            masks = ROIMasks(BitMasks(masks.bool()).crop_and_resize(boxes, CROPPED_MASK_SIZE))
        moved.pred_masks = masks
    if instances.has("pred_keypoints"):
        keypoints = instances.pred_keypoints
        moved.pred_keypoints = keypoints + keypoints.new_tensor([tile.x1, tile.y1, 0])
    return moved


def move_proposals(proposals: Instances, tile: Tile, image_size: tuple[int, int]) -> Instances:
    """Move the proposals of a tile to the frame of the image."""
    boxes = proposals.proposal_boxes
    return Instances(
        image_size,
        proposal_boxes=type(boxes)(shift_boxes(boxes.tensor, tile.x1, tile.y1)),
        objectness_logits=proposals.objectness_logits,
    )
