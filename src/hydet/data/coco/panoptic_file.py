"""COCO's panoptic JSON file, checked field by field and flattened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hydet.data.coco.annotation_fields import read_flag
from hydet.data.coco.categories import Category, clean_name, read_categories
from hydet.data.coco.flat_storage import FlatStrings
from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_values import read_json, shorten, to_int, to_number, unused_ids
from hydet.data.coco.problems import ProblemHandler
from hydet.data.coco.semantic import check_num_labels
from hydet.data.errors import DataError

__all__ = ["UNKNOWN_AREA", "FlatSegments", "PanopticFile", "read_panoptic_file"]

UNKNOWN_AREA = -1
_MAX_SEGMENT_ID = 2**24 - 1  # what a color encodes
_MAX_AREA = 2**40  # pixels


@dataclasses.dataclass(frozen=True)
class FlatSegments:
    """All segments in the order of their images, in arrays that worker processes share.

    ``classes`` has the class of a thing and the semantic label of stuff. Image ``i`` has the segments
    ``image_range[i] ... image_range[i + 1]``.
    """

    image_range: np.ndarray  # (images + 1,) int64
    ids: np.ndarray  # (S,) int64
    classes: np.ndarray  # (S,) int64
    isthing: np.ndarray  # (S,) bool
    iscrowd: np.ndarray  # (S,) bool
    areas: np.ndarray  # (S,) int64, UNKNOWN_AREA if the file does not have it


@dataclasses.dataclass(frozen=True)
class PanopticFile:
    """The content of a panoptic JSON file.

    Args:
        image_ids: ``(N,)`` int64 in ascending order.
        map_names: names of the PNG files of the images.
        segments: segments of all images.
        stuff_classes: names of the semantic labels; label 0 represents things.
        stuff_ids: category ids of the semantic labels, 0 for label 0.
    """

    image_ids: np.ndarray
    map_names: FlatStrings
    segments: FlatSegments
    stuff_classes: tuple[str, ...]
    stuff_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Segment:
    """One entry of ``segments_info``; see :class:`FlatSegments` for the fields."""

    segment_id: int
    class_or_label: int
    isthing: bool
    iscrowd: bool
    area: int


def read_panoptic_file(
    path: Path,
    thing_classes: Sequence[str],
    stuff_classes: Sequence[str] | None,
    *,
    image_ids: IdTable | None,
    problems: ProblemHandler,
) -> PanopticFile:
    """Read a panoptic JSON file.

    Args:
        path: the file.
        thing_classes: names of the object classes.
        stuff_classes: names of the semantic labels; None takes those of the file in ascending order of ids.
        image_ids: integers of the image ids in the file of objects; None for those of this file.
        problems: receives annotations and segments that are left out.

    Raises:
        DataError: if the file is missing or not in this format, has segments of other categories, or has more than 255
            semantic labels.
    """
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not isinstance(content.get("categories"), list):
        raise DataError(
            f"{path}: is not a COCO panoptic file: a list 'annotations' or 'categories' is missing"
        )
    if image_ids is None:
        image_ids = IdTable(entry.get("image_id") for entry in entries if isinstance(entry, dict))
    category_entries = content["categories"]
    category_ids = IdTable(c.get("id") for c in category_entries if isinstance(c, dict))
    used_ids = {category_ids.find(value) for value in _used_category_ids(entries)}
    categories = read_categories(path, category_entries, category_ids, used_ids=used_ids, problems=problems)
    stuff = [c for c in categories.values() if not c.isthing]
    names = ["things", *(c.name for c in stuff)]
    if stuff_classes is not None:
        names = [clean_name(str(name)) for name in stuff_classes]
    check_num_labels(len(names), str(path))
    things = [c for c in categories.values() if c.isthing]
    reader = _PanopticReader(
        image_ids,
        category_ids,
        things=_index_by_id(path, "a thing", things, list(thing_classes), used_ids),
        stuff=_index_by_id(path, "stuff", stuff, names, used_ids),
        problems=problems,
    )
    ids, map_names, segments = reader.read(entries)
    free_ids = unused_ids(categories)
    id_of = {c.name: c.category_id for c in stuff}
    stuff_ids = (0, *(id_of[name] if name in id_of else next(free_ids) for name in names[1:]))
    return PanopticFile(ids, map_names, segments, tuple(names), stuff_ids)


def _used_category_ids(entries: list[object]) -> list[object]:
    """Return the category ids of all segments."""
    values: list[object] = []
    for entry in entries:
        segments = entry.get("segments_info") if isinstance(entry, dict) else None
        if isinstance(segments, list):
            values += [segment.get("category_id") for segment in segments if isinstance(segment, dict)]
    return values


def _index_by_id(
    path: Path, kind: str, categories: Sequence[Category], names: list[str], used_ids: set[int | None]
) -> dict[int, int]:
    """Return the index in ``names`` of each category id; categories without segments may be absent there."""
    indices = {}
    for category in categories:
        if category.name in names:
            indices[category.category_id] = names.index(category.name)
        elif category.category_id in used_ids:
            raise DataError(
                f"{path}: category {category.name!r} is {kind}, but is not one of the {len(names)} names"
            )
    return indices


class _PanopticReader:
    """Reads ``annotations``; broken entries are reported and left out."""

    def __init__(
        self,
        image_ids: IdTable,
        category_ids: IdTable,
        *,
        things: Mapping[int, int],
        stuff: Mapping[int, int],
        problems: ProblemHandler,
    ) -> None:
        self.image_ids = image_ids
        self.category_ids = category_ids
        self.things = things
        self.stuff = stuff
        self.problems = problems

    def read(self, entries: list[object]) -> tuple[np.ndarray, FlatStrings, FlatSegments]:
        """Return the image ids in ascending order, the names of the PNG files, and the segments."""
        images: dict[int, tuple[str, list[_Segment]]] = {}
        for position, entry in enumerate(entries):
            image_id = self.image_ids.find(entry.get("image_id")) if isinstance(entry, dict) else None
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or image_id is None or not isinstance(name, str) or not name:
                message = f"annotation {position} needs an 'image_id' and a 'file_name', got {shorten(entry)}"
                self.problems.add("bad_panoptic_entry", message, names_image=False)
            elif image_id in images:
                message = (
                    f"{name}: image {shorten(entry['image_id'])} has the map {images[image_id][0]} already"
                )
                self.problems.add("duplicate_panoptic_entry", message)
            else:
                images[image_id] = (name, self._read_segments(entry.get("segments_info"), name))
        ids = sorted(images)
        segments = [segment for i in ids for segment in images[i][1]]
        flat = FlatSegments(
            image_range=np.cumsum([0, *(len(images[i][1]) for i in ids)]),
            ids=np.array([s.segment_id for s in segments], dtype=np.int64),
            classes=np.array([s.class_or_label for s in segments], dtype=np.int64),
            isthing=np.array([s.isthing for s in segments], dtype=bool),
            iscrowd=np.array([s.iscrowd for s in segments], dtype=bool),
            areas=np.array([s.area for s in segments], dtype=np.int64),
        )
        names = FlatStrings.of([images[i][0].encode(errors="surrogatepass") for i in ids])
        return np.array(ids, dtype=np.int64), names, flat

    def _read_segments(self, values: object, name: str) -> list[_Segment]:
        if not isinstance(values, list):
            message = f"{name}: segments_info must be a list, got {shorten(values)}"
            self.problems.add("bad_panoptic_entry", message, action="read as empty")
            return []
        segments: dict[int, _Segment] = {}
        for value in values:
            segment = self._read_segment(value, name)
            if segment is None:
                continue
            if segment.segment_id in segments:
                message = f"segment {segment.segment_id} of {name} appears twice"
                self.problems.add("duplicate_segment_id", message)
            else:
                segments[segment.segment_id] = segment
        return list(segments.values())

    def _read_segment(self, value: object, name: str) -> _Segment | None:
        segment_id = to_int(value.get("id")) if isinstance(value, dict) else None
        if not isinstance(value, dict) or segment_id is None or not 0 < segment_id <= _MAX_SEGMENT_ID:
            message = f"a segment of {name} needs an 'id' in [1, {_MAX_SEGMENT_ID}], got {shorten(value)}"
            self.problems.add("bad_segment", message)
            return None
        description = f"segment {segment_id} of {name}"
        category_id = self.category_ids.find(value.get("category_id"))
        isthing = category_id in self.things
        index = None if category_id is None else (self.things if isthing else self.stuff).get(category_id)
        if index is None:
            message = f"{description}: there is no category with id {shorten(value.get('category_id'))}"
            self.problems.add("unknown_category", message)
            return None
        area = to_number(value.get("area"))
        if (area is None and value.get("area") is not None) or (
            area is not None and not 0 <= area <= _MAX_AREA
        ):
            message = f"{description}: area must be a number of pixels, got {shorten(value['area'])}"
            self.problems.add("bad_area", message, action="computed")
            area = None
        return _Segment(
            segment_id=segment_id,
            class_or_label=index,
            isthing=isthing,
            iscrowd=read_flag(value, "iscrowd", description, self.problems),
            area=UNKNOWN_AREA if area is None else int(area),
        )
