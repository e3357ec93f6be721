"""COCO's panoptic annotations: a JSON, and PNG files whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hydet.data.coco_file import read_json
from hydet.data.errors import DataError
from hydet.data.images import read_labels

__all__ = ["PanopticLabels", "ids_to_rgb", "rgb_to_ids"]

_VOID = 255


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

    Attributes:
        stuff_classes: "things", then the categories that are stuff.
        stuff_ids: their category ids, 0 for "things".

    Raises:
        DataError: if the file is missing or not in this format.
    """

    def __init__(self, json: str | Path, folder: str | Path | None, thing_classes: Mapping[str, int]) -> None:
        self.path = Path(json)
        self.folder = Path(folder) if folder is not None else self.path.with_suffix("")
        content = read_json(json)
        try:
            categories = sorted(content["categories"], key=lambda c: c["id"])
            self._entries = {
                a["image_id"]: (str(a["file_name"]), a["segments_info"]) for a in content["annotations"]
            }
            things = [c for c in categories if c.get("isthing", 1)]
            stuff = [c for c in categories if not c.get("isthing", 1)]
        except (KeyError, TypeError) as error:
            raise DataError(f"{json}: is not a COCO panoptic file: {error!r} is missing") from error
        names = list(thing_classes)
        unknown = [c["name"] for c in things if c["name"] not in thing_classes]
        if unknown:
            raise DataError(f"{json}: category {unknown[0]!r} is a thing, but none of the class names")
        self._thing = {c["id"]: names.index(c["name"]) for c in things}
        self._stuff = {c["id"]: i for i, c in enumerate(stuff, start=1)}
        self.stuff_classes = ("things", *(str(c["name"]) for c in stuff))
        self.stuff_ids = (0, *(int(c["id"]) for c in stuff))

    def read(self, image_id: int, who: str) -> tuple[np.ndarray, list[dict[str, Any]], np.ndarray]:
        """``(H, W)`` int32 segment ids, the segments, and ``(H, W)`` uint8 semantic labels.

        Raises:
            DataError: if the image has none, or the file does not fit the JSON.
        """
        if image_id not in self._entries:
            raise DataError(f"{self.path}: has no segments of image {image_id} ({who})")
        name, segments = self._entries[image_id]
        colors = read_labels(self.folder / name)
        if colors.ndim != 3 or colors.shape[2] < 3:
            raise DataError(f"{self.folder / name}: a panoptic map has three colours a pixel")
        ids = rgb_to_ids(colors[:, :, :3])
        values, inverse = np.unique(ids, return_inverse=True)
        label_of = np.full(len(values), _VOID, dtype=np.uint8)
        info = []
        for segment in segments:
            category = segment["category_id"]
            isthing = category in self._thing
            if not isthing and category not in self._stuff:
                raise DataError(f"{self.path}: segment {segment['id']} of {name}: no category {category}")
            label_of[values == segment["id"]] = 0 if isthing else self._stuff[category]
            info.append(
                {
                    "id": int(segment["id"]),
                    "category_id": self._thing[category] if isthing else self._stuff[category],
                    "isthing": isthing,
                    "iscrowd": bool(segment.get("iscrowd", 0)),
                    "area": int(segment.get("area", np.count_nonzero(ids == segment["id"]))),
                }
            )
        return ids, info, label_of[inverse].reshape(ids.shape)
