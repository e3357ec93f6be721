"""Categories and images of a COCO JSON file; entries that cannot be used are reported and left out."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from hydet.data.coco.categories import Category, read_categories
from hydet.data.coco.ids import IdTable
from hydet.data.coco.image_finder import ImageFinder
from hydet.data.coco.json_values import is_int, read_json, shorten, to_int
from hydet.data.coco.problems import ProblemHandler
from hydet.data.datasets.coco_format import FederatedKey
from hydet.data.errors import DataError
from hydet.data.images.reading import read_image_size

__all__ = ["FEDERATED_KEYS", "CocoFile", "ImageEntry", "read_coco_file"]

# LVIS lists for each image the categories that are verified to be absent, and those of which some objects may be
# missing.
FEDERATED_KEYS: tuple[FederatedKey, ...] = ("neg_category_ids", "not_exhaustive_category_ids")
_MAX_SIDE = 2**20  # pixels; larger sizes are mistakes


@dataclasses.dataclass(frozen=True, slots=True)
class ImageEntry:
    """One entry of ``images``.

    Args:
        image_id: the id in the file, or its integer of 64 bits; see :class:`hydet.data.coco.ids.IdTable`.
        file_name: path of the file relative to the image folder; may be another form of the name in the JSON.
        height: in pixels.
        width: in pixels.
        federated: category ids under the keys ``FEDERATED_KEYS`` that the entry has.
    """

    image_id: int
    file_name: str
    height: int
    width: int
    federated: Mapping[FederatedKey, list[int]]


@dataclasses.dataclass
class CocoFile:
    """The content of a COCO JSON file.

    Args:
        path: the file, for messages.
        categories: by id, in ascending order of ids.
        images: images that can be used.
        skipped_image_ids: ids of images with a missing or broken file, which have been reported.
        annotation_entries: unchecked entries of ``annotations``.
        image_ids: integers of the image ids.
        category_ids: integers of the category ids.
        num_annotations: number of annotations of each category id that occurs.
    """

    path: Path
    categories: dict[int, Category]
    images: list[ImageEntry]
    skipped_image_ids: set[int]
    annotation_entries: list[object]
    image_ids: IdTable
    category_ids: IdTable
    num_annotations: Mapping[int, int]


def read_coco_file(path: Path, image_folder: Path, *, problems: ProblemHandler) -> CocoFile:
    """Read a COCO JSON file and check its categories and images.

    Args:
        path: the JSON file.
        image_folder: folder that ``file_name`` is relative to. If there is no such file, the last two parts of
            ``coco_url`` are used instead; LVIS has no file names. Otherwise, the name may have another form; see
            :class:`hydet.data.coco.image_finder.ImageFinder`.
        problems: receives the problems of entries of ``images`` and ``categories``.

    Raises:
        DataError: if the file is missing or not in COCO's format, or the folder is missing.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(
            f"{path}: is not a COCO file: it has no list 'images'; export the annotations in COCO's format"
        )
    annotation_entries = content.get("annotations")
    if annotation_entries is None:
        annotation_entries = _nested_annotations(content["images"], problems)
    if not isinstance(annotation_entries, list):
        raise DataError(f"{path}: is not a COCO file: 'annotations' is not a list")
    category_entries = content.get("categories")
    category_ids = IdTable(_ids_of(category_entries, "id"))
    num_annotations = Counter(map(category_ids.find, _ids_of(annotation_entries, "category_id")))
    categories = read_categories(
        path, category_entries, category_ids, used_ids=num_annotations.keys(), problems=problems
    )
    image_ids = IdTable(_ids_of(content["images"], "id"))
    for label, number in image_ids.renumbered.items():
        message = (
            f"image id {shorten(label)} is not an integer of 64 bits; it is {number} here, but not in results"
        )
        problems.note("renumbered_image_id", message, action="renumbered", names_image=False)
    reader = _ImageReader(image_folder, image_ids, category_ids, problems)
    reader.read(content["images"])
    return CocoFile(
        path,
        categories,
        list(reader.images.values()),
        reader.skipped,
        annotation_entries,
        image_ids=image_ids,
        category_ids=category_ids,
        num_annotations={i: n for i, n in num_annotations.items() if i is not None},
    )


def _nested_annotations(images: list[object], problems: ProblemHandler) -> list[object]:
    """Return the annotations that are lists in the entries of ``images``, with their ``image_id``."""
    annotations: list[object] = []
    for image in images:
        nested = image.get("annotations") if isinstance(image, dict) else None
        if isinstance(image, dict) and isinstance(nested, list):
            owner = {"image_id": image.get("id")}
            annotations.extend(owner | entry if isinstance(entry, dict) else entry for entry in nested)
    if annotations:
        message = "the annotations are in the entries of 'images' instead of a list of their own"
        problems.note("nested_annotations", message, action="read from there", names_image=False)
    return annotations


def _ids_of(entries: object, key: str) -> list[int | float | str]:
    """Return the values that may be ids in a list of mappings."""
    if not isinstance(entries, list):
        return []
    values = (entry.get(key) for entry in entries if isinstance(entry, dict))
    return [value for value in values if isinstance(value, int | float | str)]


class _ImageReader:
    """Reads ``images``; the attributes ``images`` and ``skipped`` hold the result.

    Attributes:
        images: images that can be used, by id.
        skipped: ids of images with a missing or broken file.
    """

    def __init__(
        self, folder: Path, image_ids: IdTable, category_ids: IdTable, problems: ProblemHandler
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such image folder")
        self.folder = folder
        self.finder = ImageFinder(folder)
        self.image_ids = image_ids
        self.category_ids = category_ids
        self.problems = problems
        self.images: dict[int, ImageEntry] = {}
        self.skipped: set[int] = set()

    def read(self, entries: list[object]) -> None:
        """Read the list ``images``."""
        other_names = self._find_other_names(entries)
        for position, entry in enumerate(entries):
            names = _candidate_file_names(entry)
            image_id = self.image_ids.find(entry.get("id")) if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not names or image_id is None:
                message = f"image {position} needs an integer 'id' and a 'file_name', got {shorten(entry)}"
                self.problems.add("bad_image_entry", message, names_image=False)
                continue
            name = next((name for name in names if name in self.finder), None)
            if name is None and names[0] in other_names:
                name = other_names[names[0]]
                message = f"{names[0]} stands for {name}"
                self.problems.note("other_file_name", message, action="found in another form")
            if image_id in self.images:
                message = (
                    f"{name or names[0]}: {self.images[image_id].file_name} already has image id {image_id}"
                )
                self.problems.add("duplicate_image_id", message)
            elif name is None:
                self.skipped.add(image_id)
                self.problems.add("missing_image", self._describe_missing(names[0]))
            else:
                self._add(image_id, name, entry)

    def _add(self, image_id: int, name: str, entry: Mapping[str, object]) -> None:
        """Add an image with an existing file."""
        size = self._read_size(name, entry)
        if size is None:
            self.skipped.add(image_id)
            return
        federated = {
            key: self._read_federated(key, entry[key], name)
            for key in FEDERATED_KEYS
            if entry.get(key) is not None
        }
        self.images[image_id] = ImageEntry(image_id, name, *size, federated)

    def _read_size(self, name: str, entry: Mapping[str, object]) -> tuple[int, int] | None:
        """Return (height, width), or None if the JSON does not have it and the file cannot be read."""
        values = entry.get("height"), entry.get("width")
        height, width = map(to_int, values)
        if height is not None and width is not None and 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE:
            return height, width
        try:
            size = read_image_size(self.folder / name)
        except DataError as error:
            self.problems.add("unreadable_image", str(error))
            return None
        if values != (None, None):
            message = f"{name}: height and width must be numbers of pixels, got {shorten(list(values))}"
            self.problems.note("bad_image_size", message, action="read from the image")
        return size

    def _read_federated(self, key: FederatedKey, value: object, name: str) -> list[int]:
        """Return a list of category ids, without those that are not ids."""
        values = value if isinstance(value, list) else [None]
        ids = [self.category_ids.find(v) for v in values]
        known = [i for i in ids if i is not None]
        if len(known) < len(values):
            message = f"{name}: {key} must be a list of category ids, got {shorten(value)}"
            self.problems.add("bad_federated_list", message, action="left out")
        return known

    def _find_other_names(self, entries: list[object]) -> dict[str, str]:
        """Return the files that names without a file stand for in another form; each file has one name at most."""
        claims: dict[str, set[str]] = defaultdict(set)
        exact: set[str] = set()
        for entry in entries:
            names = _candidate_file_names(entry)
            existing = next((name for name in names if name in self.finder), None)
            if existing is not None:
                exact.add(existing)
            elif names and (similar := self.finder.find_similar(names[0])) is not None:
                claims[similar].add(names[0])
        return {
            names.pop(): similar
            for similar, names in claims.items()
            if len(names) == 1 and similar not in exact
        }

    def _describe_missing(self, name: str) -> str:
        nearest = self.finder.nearest(name)
        return f"{self.folder / name}: no such file" + (f"; the nearest is {nearest}" if nearest else "")


def _candidate_file_names(entry: object) -> list[str]:
    """Return the names under which an image may be stored, the preferred one first.

    LVIS has no ``file_name``, but a ``coco_url`` that ends in the folder and the name of an image of COCO 2017.
    """
    if not isinstance(entry, dict):
        return []
    file_name, url = entry.get("file_name"), entry.get("coco_url")
    names = [str(file_name)] if (isinstance(file_name, str) or is_int(file_name)) and file_name else []
    if isinstance(url, str) and url:
        names.append("/".join(url.split("/")[-2:]))
    return names
