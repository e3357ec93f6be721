"""Categories and images of a COCO JSON file; entries that cannot be used are reported and left out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydet.data.coco.json_values import is_int, read_json, shorten
from hydet.data.coco.problems import ProblemHandler
from hydet.data.datasets.coco_format import FederatedKey
from hydet.data.errors import DataError
from hydet.data.images.reading import read_image_size

__all__ = ["FEDERATED_KEYS", "CocoFile", "ImageEntry", "read_coco_file"]

# LVIS lists for each image the categories that are verified to be absent, and those of which some objects may be
# missing.
FEDERATED_KEYS: tuple[FederatedKey, ...] = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclasses.dataclass(frozen=True, slots=True)
class ImageEntry:
    """One entry of ``images``.

    Args:
        image_id: the id in the file.
        file_name: path relative to the image folder.
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
        categories: entries of ``categories`` by id, in ascending order of ids.
        images: images that can be used.
        skipped_image_ids: ids of images whose file is missing or broken, which are reported already.
        annotation_entries: ``annotations`` as they are in the file, not checked yet.
    """

    path: Path
    categories: dict[int, Mapping[str, Any]]
    images: list[ImageEntry]
    skipped_image_ids: set[int]
    annotation_entries: list[object]


def read_coco_file(path: Path, image_folder: Path, *, problems: ProblemHandler) -> CocoFile:
    """Read a COCO JSON file and check its categories and images.

    Args:
        path: the JSON file.
        image_folder: folder that ``file_name`` is relative to. If there is no such file, the last two parts of
            ``coco_url`` are used instead, as LVIS needs it.
        problems: receives entries of ``images`` that cannot be used.

    Raises:
        DataError: if the file is missing or not in COCO's format, or the folder is missing.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: is not a COCO file: it has no list 'images'")
    annotation_entries = content.get("annotations", [])
    if not isinstance(annotation_entries, list):
        raise DataError(f"{path}: is not a COCO file: 'annotations' is not a list")
    categories = _read_categories(path, content.get("categories"))
    images, skipped_image_ids = _read_images(content["images"], image_folder, problems)
    return CocoFile(path, categories, images, skipped_image_ids, annotation_entries)


def _read_categories(path: Path, entries: object) -> dict[int, Mapping[str, Any]]:
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: is not a COCO file: it has no 'categories'")
    categories: dict[int, Mapping[str, Any]] = {}
    names: set[str] = set()
    for entry in entries:
        if not isinstance(entry, dict) or not is_int(entry.get("id")) or "name" not in entry:
            raise DataError(f"{path}: a category needs an integer 'id' and a 'name', got {shorten(entry)}")
        if entry["id"] in categories or entry["name"] in names:
            raise DataError(f"{path}: category {entry['name']!r} with id {entry['id']} appears twice")
        categories[entry["id"]] = entry
        names.add(entry["name"])
    return dict(sorted(categories.items()))


def _read_images(
    entries: list[Any], folder: Path, problems: ProblemHandler
) -> tuple[list[ImageEntry], set[int]]:
    """Return the images that can be used, and the ids of those whose file is missing or broken."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such image folder")
    listing = _FolderListing(folder)
    images: dict[int, ImageEntry] = {}
    skipped: set[int] = set()
    for position, entry in enumerate(entries):
        names = _candidate_file_names(entry)
        if not names or not is_int(entry.get("id")):
            message = f"image {position} needs an integer 'id' and a 'file_name', got {shorten(entry)}"
            problems.add("bad_image_entry", message)
            continue
        image_id = int(entry["id"])
        name = next((name for name in names if name in listing), names[0])
        if image_id in images:
            message = f"{name}: {images[image_id].file_name} already has image id {image_id}"
            problems.add("duplicate_image_id", message)
            continue
        if name not in listing:
            skipped.add(image_id)
            problems.add("missing_image", f"{folder / name}: no such file")
            continue
        height, width = entry.get("height"), entry.get("width")
        if not (is_int(height) and is_int(width) and height > 0 and width > 0):
            try:
                height, width = read_image_size(folder / name)
            except DataError as error:
                skipped.add(image_id)
                problems.add("unreadable_image", str(error))
                continue
        images[image_id] = ImageEntry(image_id, name, int(height), int(width), _federated_lists(entry))
    return list(images.values()), skipped


class _FolderListing:
    """File names below a folder; reads each subfolder once, which is faster than a system call per file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names_in: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        parent, base = os.path.split(name)
        if parent not in self._names_in:
            try:
                with os.scandir(self.folder / parent) as entries:
                    self._names_in[parent] = {entry.name for entry in entries if not entry.is_dir()}
            except OSError:
                self._names_in[parent] = set()
        return base in self._names_in[parent]


def _candidate_file_names(entry: object) -> list[str]:
    """Return the names under which an image may be stored, the preferred one first.

    LVIS has no ``file_name``, but a ``coco_url`` that ends in the folder and the name of an image of COCO 2017.
    """
    if not isinstance(entry, dict):
        return []
    names = [str(entry["file_name"])] if entry.get("file_name") else []
    if isinstance(entry.get("coco_url"), str):
        names.append("/".join(entry["coco_url"].split("/")[-2:]))
    return names


def _federated_lists(entry: Mapping[str, object]) -> dict[FederatedKey, list[int]]:
    lists = {key: entry.get(key) for key in FEDERATED_KEYS}
    return {key: ids for key, ids in lists.items() if isinstance(ids, list) and all(map(is_int, ids))}
