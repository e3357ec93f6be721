"""Ground truth in one form that can be drawn, from a record or a model input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from hydet.structures import BitMasks, Boxes, Instances, Keypoints, RotatedBoxes, SegmentInfo
from hydet.visualization.objects import DrawnObjects, Size, objects_from_ground_truth

__all__ = ["AnnotatedRecord", "Annotations"]


@runtime_checkable
class AnnotatedRecord(Protocol):
    """The part of a ``hydet.data.Record`` that is drawn, in pixels of its image."""

    image: Tensor
    boxes: Tensor
    classes: Tensor
    iscrowd: Tensor
    segments: Sequence[object] | None
    masks: Tensor | None
    keypoints: Tensor | None
    rotated_boxes: Tensor | None
    sem_seg: Tensor | None
    panoptic_seg: Tensor | None
    segments_info: Sequence[SegmentInfo] | None
    metadata: object

    def bitmasks(self) -> Tensor:
        """Return the ``(N, H, W)`` bool masks of all objects."""
        ...


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The drawable annotations of one image; None for a kind that it lacks.

    Args:
        image: uint8 ``(3, H, W)`` RGB.
        instances: objects with the fields of a model input's instances.
        crowd: ``(N,)`` bool, True for crowd regions among the objects.
        panoptic_seg: ``(H, W)`` segment ids.
        segments_info: segments of ``panoptic_seg``.
        sem_seg: ``(H, W)`` semantic labels.
        metadata: metadata of the record's dataset.
    """

    image: Tensor
    instances: Instances | None = None
    crowd: Tensor | None = None
    panoptic_seg: Tensor | None = None
    segments_info: Sequence[SegmentInfo] | None = None
    sem_seg: Tensor | None = None
    metadata: object = None

    @classmethod
    def from_example(cls, example: object, *, rotated: bool = False) -> Annotations:
        """Read the annotations of a record or a model input.

        Args:
            example: a ``hydet.data.Record``, or a mapping with ``image`` and some of ``instances``, ``sem_seg`` and
                ``panoptic_seg``; the latter either with ``segments_info`` beside it, or as a pair with the segments.
            rotated: take the rotated boxes of a record that has both kinds.

        Raises:
            ValueError: if it is neither, or has no image.
        """
        if isinstance(example, Mapping) and example.get("image") is not None:
            panoptic_seg, segments_info = example.get("panoptic_seg"), example.get("segments_info")
            if isinstance(panoptic_seg, tuple):
                panoptic_seg, segments_info = panoptic_seg
            return cls(
                image=example["image"],
                instances=example.get("instances"),
                panoptic_seg=panoptic_seg,
                segments_info=segments_info,
                sem_seg=example.get("sem_seg"),
                metadata=example.get("metadata"),
            )
        if not isinstance(example, AnnotatedRecord):
            raise ValueError(
                "draw_ground_truth takes a hydet.data.Record or a model input with an image, "
                f"got {type(example).__name__}"
            )
        return cls(
            image=example.image,
            instances=_instances_of(example, rotated),
            crowd=example.iscrowd,
            panoptic_seg=example.panoptic_seg,
            segments_info=example.segments_info,
            sem_seg=example.sem_seg,
            metadata=example.metadata,
        )

    def objects(self, size: Size) -> DrawnObjects:
        """Return the objects in the frame of a drawn image of ``size``.

        Raises:
            ValueError: if there are no instances.
        """
        if self.instances is None:
            raise ValueError("there are no instances to draw")
        objects = objects_from_ground_truth(self.instances, size)
        objects.crowd = self.crowd
        return objects


def _instances_of(record: AnnotatedRecord, rotated: bool) -> Instances:
    height, width = record.image.shape[1:]
    boxes = RotatedBoxes(record.rotated_boxes) if rotated and record.rotated_boxes is not None else None
    instances = Instances(
        (height, width), gt_boxes=Boxes(record.boxes) if boxes is None else boxes, gt_classes=record.classes
    )
    if record.keypoints is not None:
        instances.gt_keypoints = Keypoints(record.keypoints)
    if record.masks is not None or record.segments is not None:
        instances.gt_masks = BitMasks(record.bitmasks())
    return instances
