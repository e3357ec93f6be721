"""What a built mmdet detector predicts and needs, told by its heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Abilities", "abilities_of"]


@dataclass(frozen=True)
class Abilities:
    """What to expect of a detector.

    Attributes:
        tasks: see ``MetaArchitecture.tasks``.
        num_classes: classes of objects, ``None`` if unknown or if it does not tell them apart.
        has_boxes: whether it predicts boxes; otherwise those around its masks are to be taken.
        needs_masks: whether its losses need masks of objects.
        needs_sem_seg: whether its losses need a map of labels.
        num_things: classes of objects of a panoptic detector, which come first; otherwise ``None``.
        num_stuff: the other classes of a panoptic detector; otherwise 0.
    """

    tasks: tuple[str, ...]
    num_classes: int | None
    has_boxes: bool
    needs_masks: bool
    needs_sem_seg: bool
    num_things: int | None = None
    num_stuff: int = 0


def abilities_of(detector: nn.Module) -> Abilities:
    """Look at the heads of a detector. Of one that is built in an unknown way boxes are expected."""
    fusion = getattr(detector, "panoptic_fusion_head", None)
    roi_head = getattr(detector, "roi_head", None)
    bbox_head = getattr(detector, "bbox_head", None)
    if fusion is not None:
        settings = getattr(fusion, "test_cfg", None) or {}
        panoptic = settings.get("panoptic_on", True)
        # Of a detector of regions mmdet gives the fused segments alone.
        instances = roi_head is None and settings.get("instance_on", False)
        return Abilities(
            tasks=("panoptic",) * panoptic + ("box", "mask") * instances,
            num_classes=fusion.num_things_classes,
            has_boxes=False,
            needs_masks=True,
            needs_sem_seg=fusion.num_stuff_classes > 0,
            num_things=fusion.num_things_classes,
            num_stuff=fusion.num_stuff_classes,
        )
    if roi_head is None and type(bbox_head).__name__ == "RPNHead":
        return Abilities(("proposals",), None, has_boxes=True, needs_masks=False, needs_sem_seg=False)
    has_masks = bool(getattr(detector, "with_mask", False)) or hasattr(bbox_head, "mask_head")
    return Abilities(
        tasks=("box", "mask") if has_masks else ("box",),
        num_classes=_num_classes(detector, roi_head),
        has_boxes=bool(getattr(detector, "with_bbox", True)),
        needs_masks=has_masks,
        needs_sem_seg=bool(getattr(roi_head, "with_semantic", False)),
    )


def _num_classes(detector: nn.Module, roi_head: Any) -> int | None:
    """That of the last head that tells objects apart."""
    for owner in (roi_head, detector):
        for name in ("bbox_head", "mask_head"):
            head: Any = getattr(owner, name, None)
            if isinstance(head, nn.ModuleList) and len(head) > 0:  # one a stage
                head = head[-1]
            found = getattr(head, "num_classes", None)
            if isinstance(found, int):
                return found
    return None
