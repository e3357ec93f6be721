"""One image and its annotations, as a dataset gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydet.data.annotations.rle import draw_code
from hydet.data.datasets.metadata import Metadata
from hydet.structures import polygons_to_bitmask

__all__ = ["Proposals", "Record", "Segment", "segment_to_mask"]

# One object's region: polygons whose union counts, a COCO run-length code, or nothing.
Segment = Sequence[np.ndarray] | Mapping[str, Any] | None


@dataclasses.dataclass
class Proposals:
    """Regions of one image where an object may be, found beforehand.

    Args:
        boxes: ``(P, 4)`` float32 xyxy in pixels of the image.
        objectness_logits: ``(P,)`` float32, the higher the likelier; only their order matters.

    Raises:
        ValueError: if the shapes differ from these.
    """

    boxes: Tensor
    objectness_logits: Tensor

    def __post_init__(self) -> None:
        count = len(self.objectness_logits)
        if self.boxes.shape != (count, 4) or self.objectness_logits.ndim != 1:
            shapes = tuple(self.boxes.shape), tuple(self.objectness_logits.shape)
            raise ValueError(
                f"Proposals: boxes are (P, 4) and objectness_logits (P,), got {shapes[0]} and {shapes[1]}"
            )

    def __len__(self) -> int:
        return self.boxes.shape[0]


@dataclasses.dataclass
class Record:
    """An image and what is annotated in it, in pixels of the image.

    Args:
        image: ``(3, H, W)`` uint8 RGB. It may be shared with others: do not change it in place.
        image_id: the dataset's number of the image.
        file_name: where it comes from, for messages and results.
        height: of the image.
        width: of the image.
        boxes: ``(n, 4)`` float32 xyxy.
        classes: ``(n,)`` int64 in 0 ... K-1.
        iscrowd: ``(n,)`` bool: the region covers several objects that are not told apart.
        annotation_ids: ``(n,)`` int64.
        segments: per object its region, or None if the dataset has no regions.
        masks: ``(n, H, W)`` bool, the same regions rasterised, where the dataset has them at hand.
        keypoints: ``(n, K, 3)`` float32 as (x, y, v), or None.
        rotated_boxes: ``(n, 5)`` float32 as (cx, cy, w, h, degrees counter-clockwise), or None.
        sem_seg: ``(H, W)`` uint8 or int64 labels, 255 where a pixel does not count, or None.
        panoptic_seg: ``(H, W)`` int32 segment ids, 0 where there is none, or None.
        segments_info: per segment of ``panoptic_seg`` a mapping with ``id``, ``category_id`` (the class of a thing,
            the semantic label of stuff), ``isthing``, ``iscrowd`` and ``area``.
        proposals: regions found beforehand, or None; see ``WithProposals``.
        metadata: of the dataset.
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
    segments_info: list[dict[str, Any]] | None = None
    proposals: Proposals | None = None
    metadata: Metadata | None = None

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def bitmasks(self) -> Tensor:
        """``(n, H, W)`` bool masks of all objects; an object without a region has an empty mask.

        Raises:
            ValueError: if the dataset has no regions.
        """
        if self.masks is not None:
            return self.masks
        if self.segments is None:
            raise ValueError(f"{self.file_name}: the dataset has no masks")
        if not self.segments:
            return torch.zeros((0, self.height, self.width), dtype=torch.bool)
        return torch.from_numpy(
            np.stack([segment_to_mask(s, self.height, self.width) for s in self.segments])
        )


def segment_to_mask(segment: Segment, height: int, width: int) -> np.ndarray:
    """Rasterise one region as COCO does.

    Args:
        segment: polygons, a compressed or uncompressed run-length code, or None.
        height: of the image.
        width: of the image.

    Returns:
        ``(height, width)`` bool.

    Raises:
        ValueError: if the code belongs to an image of another size.
    """
    if segment is None:
        return np.zeros((height, width), dtype=bool)
    if not isinstance(segment, Mapping):
        return polygons_to_bitmask(segment, height, width)
    mask = np.zeros((height, width), dtype=bool)
    draw_code(segment, mask)
    return mask
