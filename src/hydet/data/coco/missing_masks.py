"""Objects without a mask among objects with masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hydet.data.coco.flat_storage import FlatAnnotations, FlatImages
from hydet.data.coco.row_selection import has_region, select_rows
from hydet.data.datasets.report import DataReport, Policy
from hydet.data.errors import DataError

__all__ = ["drop_without_mask"]

_KIND = "no_region"  # also of objects that have no mask in the file


def drop_without_mask(
    annotations: FlatAnnotations, images: FlatImages, *, policy: Policy, report: DataReport
) -> FlatAnnotations:
    """Return the annotations for a model that needs masks: those with a mask, and crowds, if the policy is ``"drop"``.

    Args:
        annotations: annotations of a dataset with masks.
        images: its images.
        policy: ``"clamp"`` keeps objects for their boxes.
        report: receives the objects; their earlier entries are removed.

    Raises:
        DataError: if an object has no mask and the policy is ``"raise"``.
    """
    messages = list(_describe(annotations, images))
    if not messages or policy == "clamp":
        return annotations
    if policy == "raise":
        raise DataError(f"{report.source}: {messages[0]}, but the model needs one")
    report.remove(_KIND)
    for message in messages:
        report.add(_KIND, f"{message}, but the model needs one", action="dropped")
    return select_rows(annotations, ~_lack_mask(annotations))


def _lack_mask(annotations: FlatAnnotations) -> np.ndarray:
    return np.asarray(~has_region(annotations) & ~annotations.iscrowd)


def _describe(annotations: FlatAnnotations, images: FlatImages) -> Iterator[str]:
    for row in np.flatnonzero(_lack_mask(annotations)).tolist():
        image = int(np.searchsorted(annotations.image_range, row, side="right")) - 1
        yield f"{images.name(image)}, annotation {annotations.ids[row]}: it has no mask that can be used"
