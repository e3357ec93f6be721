"""Selection of what a model needs from a record."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from hydet.data.datasets.record import Proposals, Record
from hydet.data.mapping.regions import MaskFormat, Regions, select_regions

__all__ = ["Sample", "select_sample"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """The parts of a record that a model needs; other parts are None.

    All parts share one frame: that of the record before the transforms, and that of the transformed image afterwards.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        boxes: ``(N, 4)`` xyxy boxes of the objects that are not crowds, in pixels of ``image``; transforms do not clamp
            them to the image.
        classes: ``(N,)`` int64.
        regions: regions of the N objects.
        keypoints: ``(N, K, 3)`` as (x, y, visibility).
        rotated_boxes: ``(N, 5)`` as (cx, cy, w, h, degrees counterclockwise).
        sem_seg: ``(H, W)`` semantic labels.
        proposals: proposals of the record.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor
    regions: Regions | None = None
    keypoints: Tensor | None = None
    rotated_boxes: Tensor | None = None
    sem_seg: Tensor | None = None
    proposals: Proposals | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


def select_sample(
    record: Record,
    *,
    mask_format: MaskFormat | None,
    keypoints: bool,
    rotated: bool,
    sem_seg: bool,
    proposals: bool,
) -> Sample:
    """Select the parts of a record that a model needs, and drop crowd regions.

    Args:
        record: not modified; the sample shares its image and labels.
        mask_format: format of the masks that the regions will become; None for no regions.
        keypoints: select keypoints.
        rotated: select rotated boxes.
        sem_seg: select semantic labels.
        proposals: select proposals.

    Raises:
        ValueError: if the record lacks a selected part.
    """
    for required, part, name in (
        (keypoints, record.keypoints, "keypoints"),
        (rotated, record.rotated_boxes, "rotated boxes"),
        (sem_seg, record.sem_seg, "semantic labels"),
        (proposals, record.proposals, "proposals"),
    ):
        if required and part is None:
            hint = "; see hydet.data.WithProposals" if name == "proposals" else ""
            raise ValueError(f"{record.file_name}: {name} are required, but the dataset has none{hint}")
    # A crowd region covers several objects, so it is not a target for one detection.
    rows = (~record.iscrowd).nonzero().flatten()
    return Sample(
        image=record.image,
        boxes=record.boxes[rows],
        classes=record.classes[rows],
        regions=None if mask_format is None else select_regions(record, rows, mask_format),
        keypoints=record.keypoints[rows] if keypoints and record.keypoints is not None else None,
        rotated_boxes=record.rotated_boxes[rows] if rotated and record.rotated_boxes is not None else None,
        sem_seg=record.sem_seg if sem_seg else None,
        proposals=record.proposals if proposals else None,
    )
