"""Objects in one form that can be drawn, from predictions, model inputs or records."""

from __future__ import annotations

import dataclasses
from typing import overload

import torch
from torch import Tensor

from hydet.structures import (
    BitMasks,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
    resize_nearest,
)

__all__ = ["DrawnObjects", "objects_from_ground_truth", "objects_from_predictions"]

Size = tuple[int, int]  # (height, width) in pixels


class MasksToPaste:
    """N masks relative to boxes, each pasted when it is drawn: all masks of a photo together take gigabytes.

    Args:
        masks: N masks on the CPU.
        boxes: ``(N, 4)`` boxes in pixels of the drawn image.
        size: (height, width) of the drawn image in pixels.
    """

    def __init__(self, masks: ROIMasks, boxes: Tensor, size: Size) -> None:
        self.masks = masks
        self.boxes = boxes
        self.size = size

    def __len__(self) -> int:
        return len(self.masks)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: Tensor) -> MasksToPaste: ...

    def __getitem__(self, index: int | Tensor) -> Tensor | MasksToPaste:
        """Return the ``(H, W)`` bool mask of an object, or the masks at ``(M,)`` indices."""
        if isinstance(index, Tensor):
            return MasksToPaste(self.masks[index], self.boxes[index], self.size)
        rows = slice(index, index + 1)
        return self.masks[rows].to_bitmasks(self.boxes[rows], *self.size).tensor[0]


@dataclasses.dataclass
class DrawnObjects:
    """Drawable parts of N objects, on the CPU and in pixels of the drawn image; None for a part that they lack.

    Args:
        count: N.
        boxes: ``(N, 4)`` xyxy, or ``(N, 5)`` as (cx, cy, w, h, degrees counterclockwise).
        classes: ``(N,)`` integers.
        scores: ``(N,)`` float32.
        masks: ``(N, H, W)`` bool, or masks that are pasted when they are drawn.
        keypoints: ``(N, K, 3)`` as (x, y, visibility or score).
        keypoint_styles: ``(N, K)`` int64: 0 for a hidden keypoint, 1 for a ring, 2 for a dot.
        crowd: ``(N,)`` bool.
        track_ids: ``(N,)`` integers; negative for objects without a track.
    """

    count: int
    boxes: Tensor | None = None
    classes: Tensor | None = None
    scores: Tensor | None = None
    masks: Tensor | MasksToPaste | None = None
    keypoints: Tensor | None = None
    keypoint_styles: Tensor | None = None
    crowd: Tensor | None = None
    track_ids: Tensor | None = None

    def select(self, index: Tensor) -> DrawnObjects:
        """Return the objects at ``(M,)`` indices, in their order."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "count"}
        selected = {name: None if part is None else part[index] for name, part in parts.items()}
        return DrawnObjects(len(index), **selected)


def objects_from_predictions(instances: Instances, size: Size, keypoint_threshold: float) -> DrawnObjects:
    """Bring detections or proposals into the frame of an image.

    Args:
        instances: with any of the fields of detections or proposals.
        size: (height, width) of the drawn image in pixels.
        keypoint_threshold: keypoints with a lower score are hidden.
    """
    field = instances.get_fields().get
    objects = _rescale(
        instances,
        size,
        boxes=field("pred_boxes", field("proposal_boxes")),
        classes=field("pred_classes"),
        scores=field("scores", field("objectness_logits")),
        masks=field("pred_masks"),
        keypoints=field("pred_keypoints"),
    )
    track_ids = field("track_ids")
    objects.track_ids = None if track_ids is None else track_ids.detach().cpu()
    if objects.keypoints is not None:
        objects.keypoint_styles = 2 * (objects.keypoints[..., 2] >= keypoint_threshold).long()
    return objects


def objects_from_ground_truth(instances: Instances, size: Size) -> DrawnObjects:
    """Bring ground truth into the frame of an image.

    Args:
        instances: with any of the fields of a model input's instances.
        size: (height, width) of the drawn image in pixels.
    """
    field = instances.get_fields().get
    objects = _rescale(
        instances,
        size,
        boxes=field("gt_boxes"),
        classes=field("gt_classes"),
        masks=field("gt_masks"),
        keypoints=field("gt_keypoints"),
    )
    if objects.keypoints is not None:
        # COCO's visibility: 0 not labeled, 1 labeled but hidden by something, 2 visible.
        objects.keypoint_styles = objects.keypoints[..., 2].long()
    return objects


def _rescale(
    instances: Instances,
    size: Size,
    *,
    boxes: Boxes | Tensor | None,
    classes: Tensor | None,
    scores: Tensor | None = None,
    masks: BitMasks | PolygonMasks | ROIMasks | Tensor | None,
    keypoints: Keypoints | Tensor | None,
) -> DrawnObjects:
    """Bring fields of instances to the CPU and from their frame into that of an image of ``size``."""
    height, width = instances.image_size
    scale_x, scale_y = size[1] / width, size[0] / height
    count = len(instances) if instances.get_fields() else 0
    box_tensor = boxes.tensor if isinstance(boxes, Boxes) else boxes
    if isinstance(masks, Tensor) and masks.ndim == 4:
        masks = ROIMasks(masks[:, 0])  # (N, 1, M, M) before postprocessing
    bitmaps: Tensor | MasksToPaste | None = None
    if masks is not None and not isinstance(masks, ROIMasks):
        bitmaps = resize_nearest(_to_bitmaps(masks, height, width).detach().cpu(), size)
    if box_tensor is not None:
        scaled = (RotatedBoxes if box_tensor.shape[1] == 5 else Boxes)(box_tensor.detach().cpu().clone())
        scaled.scale(scale_x, scale_y)
        box_tensor = scaled.tensor
        if isinstance(masks, ROIMasks):
            bitmaps = MasksToPaste(masks.to("cpu"), box_tensor, size)
    points = keypoints.tensor if isinstance(keypoints, Keypoints) else keypoints
    if points is not None:
        points = points.detach().cpu().float()[..., :3] * torch.tensor([scale_x, scale_y, 1.0])
    return DrawnObjects(
        count,
        boxes=box_tensor,
        classes=None if classes is None else classes.detach().cpu(),
        scores=None if scores is None else scores.detach().cpu().float(),
        masks=bitmaps,
        keypoints=points,
    )


def _to_bitmaps(masks: BitMasks | PolygonMasks | Tensor, height: int, width: int) -> Tensor:
    """Return ``(N, height, width)`` bool masks."""
    if isinstance(masks, PolygonMasks):
        return BitMasks.from_polygon_masks(masks, height, width).tensor
    if isinstance(masks, BitMasks):
        return masks.tensor
    return masks.bool()
