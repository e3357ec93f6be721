"""Contiguous classes for the categories of a COCO file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydet.data.coco.json_file import CocoFile
from hydet.data.errors import DataError

__all__ = ["ClassSelection", "select_classes"]

_MAX_LISTED_NAMES = 5


class ClassSelection(NamedTuple):
    """The classes of a dataset.

    Args:
        names: names of the classes 0 ... K-1.
        category_ids: their category ids. A class that the file does not have gets an unused id.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    @property
    def class_of(self) -> Mapping[int, int]:
        """Contiguous class of each category id."""
        return {category_id: i for i, category_id in enumerate(self.category_ids)}


def select_classes(
    file: CocoFile, class_names: Sequence[str] | None, *, ignore_other_categories: bool
) -> ClassSelection:
    """Match class names to the categories of a file.

    Args:
        file: the content of the file.
        class_names: names of the classes 0 ... K-1; None takes all categories of the file in ascending order of ids.
        ignore_other_categories: True to leave out categories that are not in ``class_names``.

    Raises:
        DataError: if the file has none of the classes, or has other categories and they are not ignored.
    """
    id_of = {str(category["name"]): category_id for category_id, category in file.categories.items()}
    if class_names is None:
        return ClassSelection(tuple(id_of), tuple(id_of.values()))
    names = [str(name) for name in class_names]
    others = [name for name in id_of if name not in names]
    if others and not ignore_other_categories:
        raise DataError(
            f"{file.path}: category {others[0]!r} (id {id_of[others[0]]}) is not one of the {len(names)} class names"
            f"{f', nor are {len(others) - 1} more' if len(others) > 1 else ''}; "
            "set data.class_names=null to take them from the file"
        )
    if not any(name in id_of for name in names):
        raise DataError(f"{file.path}: has none of the classes {names[:_MAX_LISTED_NAMES]}")
    unused_id = max(file.categories) + 1
    for name in names:
        if name not in id_of:
            id_of[name], unused_id = unused_id, unused_id + 1
    # A repeated name appears once here: Metadata would refuse it.
    unique_names = tuple(dict.fromkeys(names))
    return ClassSelection(unique_names, tuple(id_of[name] for name in unique_names))
