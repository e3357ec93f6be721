"""COCO's panoptic annotations: a JSON file with segments, and PNG files that encode segment ids as colors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hydet.data.coco.ids import IdTable
from hydet.data.coco.panoptic_file import UNKNOWN_AREA, read_panoptic_file
from hydet.data.coco.problems import ProblemHandler
from hydet.data.coco.semantic import IGNORED_LABEL, check_label_map_size
from hydet.data.datasets.report import DataReport
from hydet.data.errors import DataError
from hydet.data.images.reading import read_labels
from hydet.structures import SegmentInfo

__all__ = ["PanopticAnnotation", "PanopticLabels", "ids_to_rgb", "rgb_to_ids"]


def rgb_to_ids(colors: np.ndarray) -> np.ndarray:
    """Decode segment ids from colors.

    Args:
        colors: ``(H, W, 3)`` uint8.

    Returns:
        ``(H, W)`` int32, R + 256 G + 65536 B.
    """
    ids: np.ndarray = (colors.astype(np.int32) * np.array([1, 256, 65536], dtype=np.int32)).sum(
        axis=2, dtype=np.int32
    )
    return ids


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Encode ``(H, W)`` segment ids as ``(H, W, 3)`` uint8 colors, the inverse of :func:`rgb_to_ids`."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)


class PanopticAnnotation(NamedTuple):
    """The panoptic annotation of an image.

    Args:
        segment_ids: ``(H, W)`` int32, 0 for pixels without a segment.
        segments_info: entries for the segments.
        sem_seg: ``(H, W)`` uint8 semantic labels: 0 for things, 255 for pixels without a segment.
    """

    segment_ids: np.ndarray
    segments_info: list[SegmentInfo]
    sem_seg: np.ndarray


class PanopticLabels:
    """The panoptic annotations of a dataset; maps are read from files on demand.

    Args:
        json: the annotations.
        folder: folder of the PNG files; by default the path of the JSON file without its suffix.
        thing_classes: names of the object classes; must contain the names of all things that the file has segments of.
        stuff_classes: "things" or another name for label 0, then names of the labels 1, 2, ...; must contain the names
            of all stuff that the file has segments of. None takes those of the file in ascending order of ids.
        image_ids: integers of the image ids in the file of objects; None for those of this file.
        problems: receives annotations and segments that are left out; None raises an error for each.

    Attributes:
        stuff_classes: names of the semantic labels.
        stuff_ids: category ids of the semantic labels, 0 for label 0.

    Raises:
        DataError: if the file is missing or not in this format, has segments of other categories, or has more than 255
            semantic labels.
    """

    def __init__(
        self,
        json: str | Path,
        folder: str | Path | None,
        thing_classes: Sequence[str],
        stuff_classes: Sequence[str] | None = None,
        *,
        image_ids: IdTable | None = None,
        problems: ProblemHandler | None = None,
    ) -> None:
        self.path = Path(json)
        self.folder = Path(folder) if folder is not None else self.path.with_suffix("")
        if problems is None:
            problems = ProblemHandler(self.path, policy="raise", report=DataReport(str(json)))
        file = read_panoptic_file(
            self.path, thing_classes, stuff_classes, image_ids=image_ids, problems=problems
        )
        self._image_ids, self._names, self._segments = file.image_ids, file.map_names, file.segments
        self.stuff_classes = file.stuff_classes
        self.stuff_ids = file.stuff_ids

    def read(self, image_id: int, image_name: str, size: tuple[int, int]) -> PanopticAnnotation:
        """Read the annotation of an image.

        Args:
            image_id: id of the image.
            image_name: file name of the image, for messages.
            size: (height, width) of the image.

        Raises:
            DataError: if the image has no annotation, or its PNG file is missing, broken or of another size.
        """
        index = int(np.searchsorted(self._image_ids, image_id))
        if index == len(self._image_ids) or self._image_ids[index] != image_id:
            raise DataError(f"{self.path}: has no segments for image {image_id} ({image_name})")
        path = self.folder / self._names[index].decode(errors="surrogatepass")
        colors = read_labels(path)
        if colors.ndim != 3 or colors.shape[2] < 3:
            raise DataError(f"{path}: a panoptic map must have three channels, got shape {colors.shape}")
        segment_ids = rgb_to_ids(colors[:, :, :3])
        check_label_map_size(segment_ids, size, f"{image_name}: the panoptic map")
        unique_ids, inverse, counts = np.unique(segment_ids, return_inverse=True, return_counts=True)
        label_of = np.full(len(unique_ids), IGNORED_LABEL, dtype=np.uint8)
        segments_info: list[SegmentInfo] = []
        segments = self._segments
        for row in range(int(segments.image_range[index]), int(segments.image_range[index + 1])):
            matches = unique_ids == segments.ids[row]  # no match for a segment without pixels
            class_or_label, isthing = int(segments.classes[row]), bool(segments.isthing[row])
            label_of[matches] = 0 if isthing else class_or_label
            area = int(segments.areas[row])
            segments_info.append(
                {
                    "id": int(segments.ids[row]),
                    "category_id": class_or_label,
                    "isthing": isthing,
                    "iscrowd": bool(segments.iscrowd[row]),
                    "area": int(counts[matches].sum()) if area == UNKNOWN_AREA else area,
                }
            )
        return PanopticAnnotation(segment_ids, segments_info, label_of[inverse].reshape(segment_ids.shape))
