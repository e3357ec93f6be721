"""Capabilities of a built mmdet detector: what it predicts, and which labels its losses need.

mmdet's detectors share no declared interface for this, so the heads are inspected by attribute.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hydet.modeling.protocols import Task

__all__ = ["Capabilities", "inspect_detector"]


@dataclass(frozen=True)
class Capabilities:
    """Predictions of a detector, and labels that its losses need.

    Attributes:
        tasks: predictions of the detector, most important first.
        num_classes: number of object classes; None if unknown, or if the detector does not classify objects.
        has_boxes: True if the detector predicts boxes; otherwise boxes are computed from its masks.
        needs_masks: True if the losses need object masks.
        needs_sem_seg: True if the losses need a semantic label map.
        num_things: number of thing classes of a panoptic detector, which come first; None for other detectors.
        num_stuff: number of stuff classes of a panoptic detector; 0 for other detectors.
    """

    tasks: tuple[Task, ...]
    num_classes: int | None
    has_boxes: bool
    needs_masks: bool
    needs_sem_seg: bool
    num_things: int | None = None
    num_stuff: int = 0


def inspect_detector(detector: nn.Module) -> Capabilities:
    """Return the capabilities of a detector; one without the attributes of mmdet is taken to predict boxes."""
    fusion_head = getattr(detector, "panoptic_fusion_head", None)
    if fusion_head is not None:
        return _inspect_panoptic(detector, fusion_head)
    roi_head = getattr(detector, "roi_head", None)
    bbox_head = getattr(detector, "bbox_head", None)
    if roi_head is None and type(bbox_head).__name__ == "RPNHead":
        return Capabilities(("proposals",), None, has_boxes=True, needs_masks=False, needs_sem_seg=False)
    has_masks = bool(getattr(detector, "with_mask", False)) or hasattr(bbox_head, "mask_head")
    return Capabilities(
        tasks=("box", "mask") if has_masks else ("box",),
        num_classes=_num_classes(detector, roi_head),
        has_boxes=bool(getattr(detector, "with_bbox", True)),
        needs_masks=has_masks,
        needs_sem_seg=bool(getattr(roi_head, "with_semantic", False)),
    )


def _inspect_panoptic(detector: nn.Module, fusion_head: nn.Module) -> Capabilities:
    settings = getattr(fusion_head, "test_cfg", None) or {}
    # Two-stage panoptic detectors return the fused segments only, even with instance_on.
    is_two_stage = getattr(detector, "roi_head", None) is not None
    tasks: list[Task] = []
    if settings.get("panoptic_on", True):
        tasks.append("panoptic")
    if settings.get("instance_on", False) and not is_two_stage:
        tasks += ["box", "mask"]
    num_things, num_stuff = (
        _count(fusion_head, "num_things_classes"),
        _count(fusion_head, "num_stuff_classes"),
    )
    return Capabilities(
        tasks=tuple(tasks),
        num_classes=num_things,
        has_boxes=False,
        needs_masks=True,
        needs_sem_seg=num_stuff > 0,
        num_things=num_things,
        num_stuff=num_stuff,
    )


def _count(head: nn.Module, name: str) -> int:
    count = getattr(head, name)
    assert isinstance(count, int)  # every fusion head of mmdet has it
    return count


def _num_classes(detector: nn.Module, roi_head: object) -> int | None:
    """Return the number of classes of the last head that classifies objects."""
    for owner in (roi_head, detector):
        for name in ("bbox_head", "mask_head"):
            head = getattr(owner, name, None)
            if isinstance(head, nn.ModuleList) and len(head) > 0:  # one head per stage
                head = head[-1]
            num_classes = getattr(head, "num_classes", None)
            if isinstance(num_classes, int):
                return num_classes
    return None
