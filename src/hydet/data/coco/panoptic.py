"""COCO's panoptic annotations: a JSON, and PNG files whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hydet.data.coco.flat_storage import FlatStrings
from hydet.data.coco.json_file import read_json
from hydet.data.errors import DataError
from hydet.data.images.reading import read_labels

__all__ = ["PanopticLabels", "ids_to_rgb", "rgb_to_ids"]

_VOID = 255
_UNKNOWN = -1  # area of a segment of which the file says none


def rgb_to_ids(colors: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` uint8 to ``(H, W)`` int32: R + 256 G + 65536 B."""
    return (colors.astype(np.int32) * np.array([1, 256, 65536], dtype=np.int32)).sum(axis=2, dtype=np.int32)


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """The inverse of ``rgb_to_ids``."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)


class PanopticLabels:
    """Segments of the images of a panoptic file.

    Args:
        json: the annotations.
        folder: of the PNG files; by default named like the JSON.
        thing_classes: class names in order; categories that are things must be among them, by name.
        stuff_classes: "things" or another name for label 0, then those of the labels 1, 2, ...; categories that are
            stuff must be among them, by name. None takes the file's in the order of their ids.

    Attributes:
        stuff_classes: names of the semantic labels.
        stuff_ids: their category ids, 0 for label 0.

    Raises:
        DataError: if the file is missing or not in this format, or has categories that the names lack.
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
            things = {str(c["name"]): int(c["id"]) for c in categories if c.get("isthing", 1)}
            stuff = {str(c["name"]): int(c["id"]) for c in categories if not c.get("isthing", 1)}
            self._flatten(
                sorted(content["annotations"], key=lambda a: a["image_id"]),
                things=self._numbers("a thing", things, list(thing_classes)),
                stuff=self._numbers("stuff", stuff, list(stuff_classes or ("things", *stuff))),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"{json}: is not a COCO panoptic file: {error!r} is missing") from error
        names = ["things", *stuff] if stuff_classes is None else [str(name) for name in stuff_classes]
        spare = max((*things.values(), *stuff.values()), default=0) + 1
        for name in names[1:]:
            if name not in stuff:
                stuff[name], spare = spare, spare + 1  # a label that this file happens not to have
        self.stuff_classes = tuple(names)
        self.stuff_ids = (0, *(stuff[name] for name in names[1:]))

    def _numbers(self, kind: str, ids: Mapping[str, int], names: list[str]) -> dict[int, int]:
        """The place in ``names`` of each category id."""
        for name in ids:
            if name not in names:
                raise DataError(
                    f"{self.path}: category {name!r} is {kind}, but none of the {len(names)} names"
                )
        return {number: names.index(name) for name, number in ids.items()}

    def _flatten(
        self, annotations: list[Any], *, things: Mapping[int, int], stuff: Mapping[int, int]
    ) -> None:
        """Arrays, which worker processes share; the PNG files are named in the order of the images."""
        rows = []
        for annotation in annotations:
            for segment in annotation["segments_info"]:
                category = segment["category_id"]
                isthing = category in things
                if not isthing and category not in stuff:
                    name = annotation["file_name"]
                    raise DataError(f"{self.path}: segment {segment['id']} of {name}: no category {category}")
                number = things[category] if isthing else stuff[category]
                crowd, area = segment.get("iscrowd", 0), segment.get("area", _UNKNOWN)
                rows.append((segment["id"], number, isthing, bool(crowd), area))
        self._segments = np.array(rows, dtype=np.int64).reshape(-1, 5)
        self._range = np.cumsum([0, *(len(a["segments_info"]) for a in annotations)])
        self._image_ids = np.array([a["image_id"] for a in annotations], dtype=np.int64)
        self._names = FlatStrings.of([str(a["file_name"]).encode() for a in annotations])

    def read(self, image_id: int, who: str) -> tuple[np.ndarray, list[dict[str, Any]], np.ndarray]:
        """``(H, W)`` int32 segment ids, the segments, and ``(H, W)`` uint8 semantic labels.

        Raises:
            DataError: if the image has none, or its PNG file is missing or of another kind.
        """
        place = int(np.searchsorted(self._image_ids, image_id))
        if place == len(self._image_ids) or self._image_ids[place] != image_id:
            raise DataError(f"{self.path}: has no segments of image {image_id} ({who})")
        path = self.folder / self._names[place].decode()
        colors = read_labels(path)
        if colors.ndim != 3 or colors.shape[2] < 3:
            raise DataError(f"{path}: a panoptic map has three colours a pixel")
        ids = rgb_to_ids(colors[:, :, :3])
        values, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
        label_of = np.full(len(values), _VOID, dtype=np.uint8)
        info = []
        own = self._segments[self._range[place] : self._range[place + 1]].tolist()
        for number, category, isthing, iscrowd, area in own:
            here = values == number
            label_of[here] = 0 if isthing else category
            info.append(
                {
                    "id": number,
                    "category_id": category,
                    "isthing": bool(isthing),
                    "iscrowd": bool(iscrowd),
                    "area": int(counts[here].sum()) if area == _UNKNOWN else area,
                }
            )
        return ids, info, label_of[inverse].reshape(ids.shape)
