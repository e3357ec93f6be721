"""Contiguous classes for the categories of a COCO file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydet.data.coco.categories import clean_name
from hydet.data.coco.json_file import CocoFile
from hydet.data.coco.json_values import unused_ids
from hydet.data.coco.problems import ProblemHandler
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
    file: CocoFile,
    class_names: Sequence[str] | None,
    *,
    ignore_other_categories: bool,
    problems: ProblemHandler,
) -> ClassSelection:
    """Match class names to the categories of a file.

    Args:
        file: the content of the file.
        class_names: names of the classes 0 ... K-1; None takes all categories of the file in ascending order of ids.
        ignore_other_categories: True to leave out objects of categories that are not in ``class_names``. Categories
            without objects are always left out.
        problems: receives categories without objects that are left out.

    Raises:
        DataError: if the file has none of the classes, or has objects of other categories and they are not ignored.
    """
    id_of = {category.name: category_id for category_id, category in file.categories.items()}
    if class_names is None:
        return ClassSelection(tuple(id_of), tuple(id_of.values()))
    # A repeated name appears once here: Metadata would refuse it.
    names = list(dict.fromkeys(clean_name(str(name)) for name in class_names))
    others = [name for name in id_of if name not in names]
    if not ignore_other_categories:
        _check_others(file, others, names, problems)
    if len(others) == len(id_of):
        raise DataError(
            f"{file.path}: has none of the classes {_list(names)}; its categories are {_list(list(id_of))}"
        )
    free_ids = unused_ids(file.categories)
    for name in names:
        if name not in id_of:
            id_of[name] = next(free_ids)
    return ClassSelection(tuple(names), tuple(id_of[name] for name in names))


def _check_others(
    file: CocoFile, others: Sequence[str], names: Sequence[str], problems: ProblemHandler
) -> None:
    """Raise if a category outside ``names`` has objects, and report those without."""
    id_of = {category.name: category_id for category_id, category in file.categories.items()}
    used = [name for name in others if file.num_annotations.get(id_of[name])]
    if used:
        name = used[0]
        similar = next((n for n in names if n.casefold().strip() == name.casefold().strip()), None)
        hint = f", but {similar!r} is" if similar else ""
        raise DataError(
            f"{file.path}: {file.num_annotations[id_of[name]]} annotations have the category {name!r} (id {id_of[name]}), "
            f"which is not one of the {len(names)} class names {_list(names)}{hint}"
            f"{f'; {len(used) - 1} more categories are not' if len(used) > 1 else ''}. To use these objects, list all "
            "names in data.class_names (data.class_names=null takes the names of the training file); to leave them out, "
            "set ignore_other_categories, as in ++data.val.ignore_other_categories=true"
        )
    for name in others:
        message = f"category {name!r} (id {id_of[name]}) has no objects and is not one of the {len(names)} class names"
        problems.note("unused_category", message, action="left out", names_image=False)


def _list(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:_MAX_LISTED_NAMES])
    return f"[{listed}{', ...' if len(names) > _MAX_LISTED_NAMES else ''}]"
