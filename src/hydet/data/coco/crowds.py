"""Crowd flags that annotation tools write for single objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hydet.data.coco.flat_storage import Annotation
from hydet.data.coco.problems import ProblemHandler

__all__ = ["CROWD_SETTINGS", "CrowdSetting", "resolve_crowds"]

CrowdSetting = Literal["auto", "ignore", "objects"]
CROWD_SETTINGS: tuple[CrowdSetting, ...] = ("auto", "ignore", "objects")

_FEW = 0.05  # fraction of crowds above which they are reported; COCO has 0.012
_MOST = 0.5  # fraction of crowds above which the flag cannot have COCO's meaning
_ENOUGH = 5  # annotations of which most are crowds; of fewer, all have to be


def resolve_crowds(
    annotations: Sequence[Annotation], *, crowd: CrowdSetting, problems: ProblemHandler
) -> Sequence[Annotation]:
    """Decide whether ``iscrowd`` marks groups of objects, as in COCO, or single objects.

    CVAT and tools that follow it set ``iscrowd`` for every mask that was drawn with a brush, because COCO stores crowds
    as run-length codes. Training and evaluation would ignore all of these objects.

    Args:
        annotations: annotations of a file.
        crowd: ``"ignore"`` keeps the flag, ``"objects"`` clears it. ``"auto"`` clears it if most annotations have it,
            and reports it if many have it.
        problems: receives one message per file.

    Raises:
        DataError: if most annotations are crowds, ``crowd`` is ``"auto"`` and the policy is ``"raise"``.
    """
    num_crowds = sum(annotation.iscrowd for annotation in annotations)
    if crowd == "ignore" or not num_crowds:
        return annotations
    explanation = f"{num_crowds} of {len(annotations)} annotations have iscrowd=1"
    if crowd == "auto":
        if num_crowds <= _FEW * len(annotations):
            return annotations
        hint = "as CVAT's mask tool writes for single objects"
        are_all = num_crowds == len(annotations) > 1
        if not are_all and (num_crowds <= _MOST * len(annotations) or num_crowds < _ENOUGH):
            message = f"{explanation}; if they are single objects, {hint}, set crowd=objects"
            problems.note("crowds", message, action="ignored in training", names_image=False)
            return annotations
        message = (
            f"{explanation}, {hint}; crowd=ignore takes them as groups, crowd=objects without this message"
        )
        problems.add("crowds", message, action="read as single objects", names_image=False)
    return [a._replace(iscrowd=False) if a.iscrowd else a for a in annotations]
