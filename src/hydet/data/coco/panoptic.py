"""COCO's panoptic annotations: a JSON file with segments, and PNG files that encode segment ids as colors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hydet.data.coco.flat_storage import FlatStrings
from hydet.data.coco.json_values import read_json
from hydet.data.coco.semantic import check_label_map_size
from hydet.data.errors import DataError
from hydet.data.images.reading import read_labels
from hydet.structures import SegmentInfo

__all__ = ["PanopticAnnotation", "PanopticLabels", "ids_to_rgb", "rgb_to_ids"]

_IGNORED_LABEL = 255  # semantic label of pixels without a segment
_UNKNOWN_AREA = -1


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


@dataclasses.dataclass(frozen=True)
class _FlatSegments:
    """All segments in the order of their images, in arrays that worker processes share.

    ``classes`` has the class of a thing and the semantic label of stuff. Image ``i`` has the segments
    ``image_range[i] ... image_range[i + 1]``.
    """

    image_range: np.ndarray  # (images + 1,) int64
    ids: np.ndarray  # (S,) int64
    classes: np.ndarray  # (S,) int64
    isthing: np.ndarray  # (S,) bool
    iscrowd: np.ndarray  # (S,) bool
    areas: np.ndarray  # (S,) int64, -1 if the file does not have it


class PanopticLabels:
    """The panoptic annotations of a dataset; maps are read from files on demand.

    Args:
        json: the annotations.
        folder: folder of the PNG files; by default the path of the JSON file without its suffix.
        thing_classes: names of the object classes; must contain the names of all categories that are things.
        stuff_classes: "things" or another name for label 0, then names of the labels 1, 2, ...; must contain the names
            of all categories that are stuff. None takes those of the file in ascending order of ids.

    Attributes:
        stuff_classes: names of the semantic labels.
        stuff_ids: category ids of the semantic labels, 0 for label 0.

    Raises:
        DataError: if the file is missing or not in this format, or has other categories.
    """

    def __init__(
        self,
        json: str | Path,
        folder: str | Path | None,
        thing_classes: Sequence[str],
        stuff_classes: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(json)
        self.folder = Path(folder) if folder is not None else self.path.with_suffix("")
        content = read_json(json)
        try:
            categories = sorted(content["categories"], key=lambda c: c["id"])
            thing_ids = {str(c["name"]): int(c["id"]) for c in categories if c.get("isthing", 1)}
            stuff_ids = {str(c["name"]): int(c["id"]) for c in categories if not c.get("isthing", 1)}
            annotations = sorted(content["annotations"], key=lambda a: a["image_id"])
            self._segments = self._flatten(
                annotations,
                things=self._index_by_id("a thing", thing_ids, list(thing_classes)),
                stuff=self._index_by_id("stuff", stuff_ids, list(stuff_classes or ("things", *stuff_ids))),
            )
            self._image_ids = np.array([a["image_id"] for a in annotations], dtype=np.int64)
            self._names = FlatStrings.of([str(a["file_name"]).encode() for a in annotations])
        except (KeyError, TypeError) as error:
            raise DataError(f"{json}: is not a COCO panoptic file: {error!r} is missing") from error
        names = ["things", *stuff_ids] if stuff_classes is None else [str(name) for name in stuff_classes]
        unused_id = max((*thing_ids.values(), *stuff_ids.values()), default=0) + 1
        for name in names[1:]:
            if name not in stuff_ids:  # a label that does not occur in this file
                stuff_ids[name], unused_id = unused_id, unused_id + 1
        self.stuff_classes = tuple(names)
        self.stuff_ids = (0, *(stuff_ids[name] for name in names[1:]))

    def _index_by_id(self, kind: str, ids: Mapping[str, int], names: list[str]) -> dict[int, int]:
        """Return the index in ``names`` of each category id."""
        for name in ids:
            if name not in names:
                raise DataError(
                    f"{self.path}: category {name!r} is {kind}, but is not one of the {len(names)} names"
                )
        return {category_id: names.index(name) for name, category_id in ids.items()}

    def _flatten(
        self, annotations: list[Any], *, things: Mapping[int, int], stuff: Mapping[int, int]
    ) -> _FlatSegments:
        ids, classes, isthing, iscrowd, areas = [], [], [], [], []
        for annotation in annotations:
            for segment in annotation["segments_info"]:
                category_id = segment["category_id"]
                if category_id not in things and category_id not in stuff:
                    raise DataError(
                        f"{self.path}: segment {segment['id']} of {annotation['file_name']}: "
                        f"there is no category with id {category_id}"
                    )
                ids.append(segment["id"])
                classes.append(things[category_id] if category_id in things else stuff[category_id])
                isthing.append(category_id in things)
                iscrowd.append(bool(segment.get("iscrowd", 0)))
                areas.append(segment.get("area", _UNKNOWN_AREA))
        return _FlatSegments(
            image_range=np.cumsum([0, *(len(a["segments_info"]) for a in annotations)]),
            ids=np.array(ids, dtype=np.int64),
            classes=np.array(classes, dtype=np.int64),
            isthing=np.array(isthing, dtype=bool),
            iscrowd=np.array(iscrowd, dtype=bool),
            areas=np.array(areas, dtype=np.int64),
        )

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
        path = self.folder / self._names[index].decode()
        colors = read_labels(path)
        if colors.ndim != 3 or colors.shape[2] < 3:
            raise DataError(f"{path}: a panoptic map must have three channels, got shape {colors.shape}")
        segment_ids = rgb_to_ids(colors[:, :, :3])
        check_label_map_size(segment_ids, size, f"{image_name}: the panoptic map")
        unique_ids, inverse, counts = np.unique(segment_ids, return_inverse=True, return_counts=True)
        label_of = np.full(len(unique_ids), _IGNORED_LABEL, dtype=np.uint8)
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
                    "area": int(counts[matches].sum()) if area == _UNKNOWN_AREA else area,
                }
            )
        return PanopticAnnotation(segment_ids, segments_info, label_of[inverse].reshape(segment_ids.shape))
