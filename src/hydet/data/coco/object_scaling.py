"""Scaling of labels to an image that was resized after labeling."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask

from hydet.data.datasets.record import Segment, segment_to_mask
from hydet.structures import RotatedBoxes

__all__ = ["ObjectScaling"]


@dataclasses.dataclass(frozen=True)
class ObjectScaling:
    """Scales labels from the size of an image in the JSON to its real size.

    All methods return their argument itself if the sizes are equal.

    Args:
        old: (height, width) in the JSON, in pixels.
        new: (height, width) of the image as it is read, in pixels.
    """

    old: tuple[int, int]
    new: tuple[int, int]

    @property
    def is_identity(self) -> bool:
        """True if the sizes are equal."""
        return self.old == self.new

    @property
    def factors(self) -> tuple[float, float]:
        """Factors of x and y."""
        return self.new[1] / self.old[1], self.new[0] / self.old[0]

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Scale ``(n, 4)`` upright boxes, as xyxy or (x, y, w, h)."""
        return boxes if self.is_identity else boxes * np.array([*self.factors, *self.factors])

    def areas(self, areas: np.ndarray) -> np.ndarray:
        """Scale ``(n,)`` areas."""
        x, y = self.factors
        return areas if self.is_identity else areas * (x * y)

    def rotated_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Scale ``(n, 5)`` float32 rotated boxes."""
        if self.is_identity:
            return boxes
        rotated = RotatedBoxes(torch.from_numpy(boxes.copy()))
        rotated.scale(*self.factors)
        return rotated.tensor.numpy()

    def keypoints(self, keypoints: np.ndarray, *, offset: float) -> np.ndarray:
        """Scale ``(n, K, 3)`` float32 keypoints.

        Args:
            keypoints: as (x, y, visibility); unlabeled ones stay as they are.
            offset: distance of the pixel centers from the integers, 0.5 for pixel indices.
        """
        if self.is_identity:
            return keypoints
        scaled = keypoints.copy()
        points = (keypoints[..., :2] + offset) * np.array(self.factors, dtype=np.float32) - offset
        scaled[..., :2] = np.where(keypoints[..., 2:] > 0, points, keypoints[..., :2])
        return scaled

    def segment(self, segment: Segment) -> Segment:
        """Scale a region. Run-length codes become masks, and each pixel of the new mask takes the nearest one."""
        if self.is_identity or segment is None:
            return segment
        if not isinstance(segment, dict):
            return [polygon * np.tile(self.factors, len(polygon) // 2) for polygon in segment]
        mask = segment_to_mask(segment, *self.old)
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(self.old, self.new)
        )
        resized = np.asfortranarray(mask[rows][:, columns].astype(np.uint8))
        return {"size": list(self.new), "counts": coco_mask.encode(resized)["counts"]}
