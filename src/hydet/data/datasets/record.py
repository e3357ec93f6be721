"""Records: an image and its annotations, as datasets return them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hydet.data.annotations.rle import RunLengthCode, draw_run_lengths
from hydet.data.datasets.metadata import Metadata
from hydet.structures import SegmentInfo, polygons_to_bitmask

__all__ = ["Proposals", "Record", "Segment", "segment_to_mask"]

# The region of an object: the union of polygons, a COCO run-length code, or None if the object has no region.
Segment = Sequence[np.ndarray] | RunLengthCode | None


@dataclasses.dataclass
class Proposals:
    """Precomputed class-agnostic proposals of an image.

    Args:
        boxes: ``(P, 4)`` float32 xyxy in pixels of the image.
        objectness_logits: ``(P,)`` float32; only their order matters.

    Raises:
        ValueError: if the shapes do not match.
    """

    boxes: Tensor
    objectness_logits: Tensor

    def __post_init__(self) -> None:
        count = len(self.objectness_logits)
        if self.boxes.shape != (count, 4) or self.objectness_logits.ndim != 1:
            raise ValueError(
                "Proposals: boxes must have shape (P, 4) and objectness_logits (P,), "
                f"got {tuple(self.boxes.shape)} and {tuple(self.objectness_logits.shape)}"
            )

    def __len__(self) -> int:
        return self.boxes.shape[0]


@dataclasses.dataclass
class Record:
    """An image and its annotations, in pixels of the image.

    Args:
        image: ``(3, H, W)`` uint8 RGB. A dataset may return the same tensor again: do not modify it in place.
        image_id: id of the image in the dataset.
        file_name: file of the image, for messages and results.
        height: image height in pixels.
        width: image width in pixels.
        boxes: ``(N, 4)`` float32 xyxy.
        classes: ``(N,)`` int64 in [0, K).
        iscrowd: ``(N,)`` bool, True for a region that covers several objects without separating them.
        annotation_ids: ``(N,)`` int64.
        segments: region of each object, or None if the dataset has no regions.
        masks: ``(N, H, W)`` bool, the rasterized ``segments``, or None if the dataset does not have them anyway.
        keypoints: ``(N, K, 3)`` float32 as (x, y, visibility), or None.
        rotated_boxes: ``(N, 5)`` float32 as (cx, cy, w, h, degrees counter-clockwise), or None.
        sem_seg: ``(H, W)`` uint8 or int64 labels, 255 for pixels to ignore, or None.
        panoptic_seg: ``(H, W)`` int32 segment ids, 0 for unlabeled pixels, or None.
        segments_info: entries for the segments of ``panoptic_seg``, or None.
        proposals: precomputed proposals, or None; see :class:`hydet.data.WithProposals`.
        metadata: metadata of the dataset.
    """

    image: Tensor
    image_id: int
    file_name: str
    height: int
    width: int
    boxes: Tensor
    classes: Tensor
    iscrowd: Tensor
    annotation_ids: Tensor
    segments: list[Segment] | None = None
    masks: Tensor | None = None
    keypoints: Tensor | None = None
    rotated_boxes: Tensor | None = None
    sem_seg: Tensor | None = None
    panoptic_seg: Tensor | None = None
    segments_info: list[SegmentInfo] | None = None
    proposals: Proposals | None = None
    metadata: Metadata | None = None

    def __len__(self) -> int:
        """Return the number of annotations."""
        return self.boxes.shape[0]

    def bitmasks(self) -> Tensor:
        """Return ``(N, H, W)`` bool masks of all objects; the mask of an object without a region is empty.

        Raises:
            ValueError: if the dataset has no regions.
        """
        if self.masks is not None:
            return self.masks
        if self.segments is None:
            raise ValueError(f"{self.file_name}: the dataset has no masks")
        if not self.segments:
            return torch.zeros((0, self.height, self.width), dtype=torch.bool)
        masks = [segment_to_mask(segment, self.height, self.width) for segment in self.segments]
        return torch.from_numpy(np.stack(masks))


def segment_to_mask(segment: Segment, height: int, width: int) -> np.ndarray:
    """Rasterize a region as COCO does.

    Args:
        segment: polygons, a run-length code (compressed or not), or None.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        ``(height, width)`` bool mask.

    Raises:
        ValueError: if the code belongs to an image of another size.
    """
    if segment is None:
        return np.zeros((height, width), dtype=bool)
    if not isinstance(segment, Mapping):
        return polygons_to_bitmask(segment, height, width)
    mask = np.zeros((height, width), dtype=bool)
    draw_run_lengths(segment, mask)
    return mask
