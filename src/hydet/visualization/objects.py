"""Predictions and annotations brought into one form that can be drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from torch import Tensor

from hydet.structures import (
    BitMasks,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
    polygons_to_bitmask,
)


@dataclasses.dataclass
class DrawnObjects:
    """What can be drawn of N objects, in pixels of the picture."""

    count: int
    boxes: Tensor | None = None  # (N, 4) xyxy or (N, 5) rotated
    classes: Tensor | None = None  # (N,)
    scores: Tensor | None = None  # (N,)
    masks: Tensor | None = None  # (N, H, W) bool
    keypoints: Tensor | None = None  # (N, K, 3), the last one visibility or score
    shown: Tensor | None = None  # (N, K) int: 0 hidden, 1 as a ring, 2 as a dot
    crowd: Tensor | None = None  # (N,) bool

    def select(self, index: Tensor) -> DrawnObjects:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "count"}
        return DrawnObjects(
            int(index.shape[0]), **{k: None if v is None else v[index] for k, v in fields.items()}
        )


def getter_of(holder: Any) -> Callable[[str], Any]:
    """Read a field of instances, a mapping or any object; None if it has no such field."""
    if isinstance(holder, Instances):
        return holder.get_fields().get
    if isinstance(holder, Mapping):
        return holder.get
    return lambda name: getattr(holder, name, None)


def from_predictions(instances: Instances, size: Sequence[int], keypoint_threshold: float) -> DrawnObjects:
    """Predictions of a model, or proposals, in the frame of a picture of ``size`` as ``(h, w)``."""
    get = getter_of(instances)
    boxes = get("pred_boxes") if instances.has("pred_boxes") else get("proposal_boxes")
    scores = get("scores") if instances.has("scores") else get("objectness_logits")
    objects = _gathered(
        instances, size, boxes, get("pred_classes"), scores, get("pred_masks"), get("pred_keypoints")
    )
    if objects.keypoints is not None:
        objects.shown = 2 * (objects.keypoints[..., 2] >= keypoint_threshold).long()
    return objects


def from_ground_truth(instances: Instances, size: Sequence[int]) -> DrawnObjects:
    """Annotations as a model takes them, in the frame of a picture of ``size`` as ``(h, w)``."""
    get = getter_of(instances)
    objects = _gathered(
        instances, size, get("gt_boxes"), get("gt_classes"), None, get("gt_masks"), get("gt_keypoints")
    )
    if objects.keypoints is not None:
        objects.shown = objects.keypoints[..., 2].long()
    return objects


def _gathered(
    instances: Instances,
    size: Sequence[int],
    boxes: Any,
    classes: Any,
    scores: Any,
    masks: Any,
    keypoints: Any,
) -> DrawnObjects:
    """Bring the fields of instances to the CPU and into the frame of a picture of ``size``."""
    height, width = instances.image_size
    scale_x, scale_y = size[1] / width, size[0] / height
    count = len(instances) if instances.get_fields() else 0
    placed = None if boxes is None else boxes.tensor if isinstance(boxes, Boxes) else boxes
    bits = _bitmaps(masks, placed, height, width)
    if placed is not None:
        scaled = (RotatedBoxes if placed.shape[1] == 5 else Boxes)(placed.detach().cpu().clone())
        scaled.scale(scale_x, scale_y)
        placed = scaled.tensor
    if keypoints is not None:
        keypoints = keypoints.tensor if isinstance(keypoints, Keypoints) else keypoints
        keypoints = keypoints.detach().cpu().float()[..., :3] * torch.tensor([scale_x, scale_y, 1.0])
    return DrawnObjects(
        count,
        boxes=placed,
        classes=None if classes is None else classes.detach().cpu(),
        scores=None if scores is None else scores.detach().cpu().float(),
        masks=None if bits is None else resized_nearest(bits.detach().cpu(), size),
        keypoints=keypoints,
    )


def _bitmaps(masks: Any, boxes: Tensor | None, height: int, width: int) -> Tensor | None:
    if masks is None:
        return None
    if isinstance(masks, PolygonMasks):
        return BitMasks.from_polygon_masks(masks, height, width).tensor
    if isinstance(masks, Tensor) and masks.ndim == 4:  # (N, 1, M, M), before post-processing
        masks = ROIMasks(masks[:, 0])
    if isinstance(masks, ROIMasks):
        return None if boxes is None else masks.to_bitmasks(boxes, height, width).tensor
    return masks.tensor if isinstance(masks, BitMasks) else masks.bool()


def from_record(record: Any, size: Sequence[int], *, rotated: bool = False) -> DrawnObjects:
    """The annotations of a dataset record, which are in pixels of its image; its rotated boxes if asked for."""
    get = getter_of(record)
    height, width = get("image").shape[1:]
    fields: dict[str, Any] = {"gt_boxes": Boxes(get("boxes"))}
    count = len(fields["gt_boxes"])
    if rotated and get("rotated_boxes") is not None:
        fields["gt_boxes"] = RotatedBoxes(get("rotated_boxes"))
    if get("classes") is not None:
        fields["gt_classes"] = torch.as_tensor(get("classes"))
    if get("keypoints") is not None:
        fields["gt_keypoints"] = Keypoints(get("keypoints"))
    if get("masks") is not None:
        fields["gt_masks"] = BitMasks(get("masks"))
    elif get("segments") is not None and count > 0:
        masks = [_segment_mask(segment, height, width) for segment in get("segments")]
        fields["gt_masks"] = BitMasks(np.stack(masks))
    objects = from_ground_truth(Instances((height, width), **fields), size)
    if get("iscrowd") is not None:
        objects.crowd = torch.as_tensor(get("iscrowd")).bool()
    return objects


def _segment_mask(segment: Any, height: int, width: int) -> np.ndarray:
    """``(height, width)`` bool from polygons, a run-length code, or nothing."""
    if segment is None:
        return np.zeros((height, width), dtype=bool)
    if not isinstance(segment, Mapping):
        return polygons_to_bitmask([p for p in segment if len(p) >= 6], height, width)
    code: Any = dict(segment)
    if isinstance(code["counts"], list | tuple | np.ndarray):
        code["counts"] = [int(run) for run in code["counts"]]
        (code,) = coco_mask.frPyObjects([code], height, width)
    return coco_mask.decode([code])[:, :, 0].astype(bool)


def resized_nearest(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resampling of ``(..., H, W)`` masks or labels to ``size``."""
    if maps.shape[-2:] == tuple(size):
        return maps
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in zip(size, maps.shape[-2:])
    )
    return maps[..., rows[:, None], columns]
