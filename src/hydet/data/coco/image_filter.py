"""Selection of the images of a file."""

from __future__ import annotations

import dataclasses

import numpy as np

from hydet.data.coco.flat_storage import FlatAnnotations
from hydet.data.datasets.report import DataReport
from hydet.data.errors import DataError

__all__ = ["ImageFilter"]


@dataclasses.dataclass(frozen=True)
class ImageFilter:
    """Selects the images of a file to use.

    Args:
        keep_empty: keep images without objects. Crowds do not count as objects.
        min_keypoints: drop images whose objects have fewer labeled keypoints in total.
    """

    keep_empty: bool
    min_keypoints: int

    def select(self, annotations: FlatAnnotations, report: DataReport) -> np.ndarray:
        """Return the int64 indices of the selected images.

        Raises:
            DataError: if there are none, or ``min_keypoints`` is set for a dataset without keypoints.
        """
        selected = np.ones(len(annotations.image_range) - 1, dtype=bool)
        if not self.keep_empty:
            selected &= annotations.sum_over_images(~annotations.iscrowd) > 0
        if self.min_keypoints:
            if annotations.keypoints is None:
                raise DataError(
                    f"{report.source}: min_keypoints={self.min_keypoints}, but the dataset has no keypoints"
                )
            num_labeled = (annotations.keypoints[..., 2] > 0).sum(axis=1)  # (A,)
            selected &= annotations.sum_over_images(num_labeled) >= self.min_keypoints
        if not selected.any():
            raise DataError(f"{report.source}: no image is left to use{self._explain(annotations, report)}")
        return np.flatnonzero(selected)

    def _explain(self, annotations: FlatAnnotations, report: DataReport) -> str:
        """Return why no image is left, to append to a sentence."""
        num_images, num_annotations = len(annotations.image_range) - 1, len(annotations.ids)
        reasons = [] if num_images else ["no image of the file can be used"]
        if num_images and not num_annotations:
            reasons.append(
                "no image has an annotation that can be used"
                if report
                else "no image has an annotation: the file has none; export the labels with the images, or set keep_empty=true, as in "
                "data.train.keep_empty=true, to use images without objects"
            )
        elif num_images and annotations.iscrowd.all():
            reasons.append(
                f"all {num_annotations} annotations are crowds (iscrowd is 1); crowd=objects reads them as objects"
            )
        elif num_images and self.min_keypoints:
            reasons.append(f"no image has {self.min_keypoints} labeled keypoints")
        return f": {'; '.join(reasons + report.summary())}"
