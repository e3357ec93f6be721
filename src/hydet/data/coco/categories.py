"""Categories of a COCO JSON file; what cannot be used is reported and left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_values import shorten, to_int, to_number
from hydet.data.coco.problems import ProblemHandler
from hydet.data.errors import DataError, one_line

__all__ = ["Category", "clean_name", "read_categories"]

_MISSING_IN_CONFIGS = "???"  # text that stands for a missing value in configs, which store the class names


@dataclasses.dataclass(frozen=True)
class Category:
    """One entry of ``categories``.

    Args:
        category_id: the id in the file.
        name: on one line.
        supercategory: name of a group of categories; may be empty.
        keypoints: names of the keypoints; empty if it has none.
        keypoint_sigmas: tolerances of the keypoints; empty if the file has none.
        skeleton: pairs of keypoints to connect, numbered as in the file.
        frequency: LVIS's ``"r"``, ``"c"`` or ``"f"``; empty if the file has none.
        image_count: LVIS's number of images with the category, or None.
        isthing: False for stuff, in panoptic files.
    """

    category_id: int
    name: str
    supercategory: str = ""
    keypoints: tuple[str, ...] = ()
    keypoint_sigmas: tuple[float, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    frequency: str = ""
    image_count: int | None = None
    isthing: bool = True


def read_categories(
    path: Path, entries: object, ids: IdTable, *, used_ids: Set[int | None], problems: ProblemHandler
) -> dict[int, Category]:
    """Read the list ``categories``.

    Two kinds of entries are left out because tools write them for other purposes: repetitions of an entry, and groups,
    which have no objects and only name the ``supercategory`` of others.

    Args:
        path: the file, for messages.
        entries: the value of ``categories``.
        ids: the integers of the category ids.
        used_ids: ids of the categories that annotations have.
        problems: receives entries that are left out.

    Returns:
        The categories by id, in ascending order of ids.

    Raises:
        DataError: if there is no category, one has no id or no name, or two of them have the same id or name.
    """
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f"{path}: is not a COCO file: it has no 'categories'; add a list of entries such as "
            '{"id": 1, "name": "cat"}, one per category_id of the annotations'
        )
    categories: dict[int, Category] = {}
    for entry in entries:
        category = _read_category(path, entry, ids, problems)
        known = categories.setdefault(category.category_id, category)
        if known.name != category.name:
            raise DataError(
                f"{path}: category id {category.category_id} appears twice, as {known.name!r} and {category.name!r}"
            )
        if known is not category:
            problems.note(
                "repeated_category",
                f"{_describe(category)} appears twice",
                action="read once",
                names_image=False,
            )
    for group in _find_groups(categories, used_ids):
        message = f"{_describe(group)} has no objects and is only the supercategory of others"
        problems.note("category_group", message, action="left out", names_image=False)
        del categories[group.category_id]
    _check_names(path, categories, used_ids, problems)
    return dict(sorted(categories.items()))


def clean_name(name: str) -> str:
    """Return a name that configs and terminals can hold: on one printable line, and not ``???``."""
    if name.strip() == _MISSING_IN_CONFIGS:
        return f"unknown ({_MISSING_IN_CONFIGS})"
    return name if one_line(name) == name else one_line(" ".join(name.split()))


def _describe(category: Category) -> str:
    return f"category {category.name!r} with id {category.category_id}"


def _read_category(path: Path, entry: object, ids: IdTable, problems: ProblemHandler) -> Category:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: a category needs an integer 'id' and a 'name', got {shorten(entry)}")
    category_id, name = ids.find(entry.get("id")), entry.get("name")
    if type(name) in (int, float):
        name = str(name) if to_number(name) is not None else None
    if category_id is None or not isinstance(name, str) or not name.strip():
        raise DataError(f"{path}: a category needs an integer 'id' and a 'name', got {shorten(entry)}")
    printable_name = clean_name(name)
    if printable_name != name:
        message = (
            f"category {shorten(name)} is {printable_name!r} here: configs and terminals cannot hold its name"
        )
        problems.note("category_name", message, action="replaced", names_image=False)
    description = f"category {printable_name!r}"
    keypoints = _read_keypoints(entry.get("keypoints"), description, problems)
    supercategory, frequency = entry.get("supercategory"), entry.get("frequency")
    if frequency not in (None, "r", "c", "f"):
        message = f"{description}: frequency must be r, c or f, got {shorten(frequency)}"
        problems.add("bad_category_field", message, action="left out", names_image=False)
        frequency = None
    isthing = entry.get("isthing")
    if isthing is not None and to_number(isthing) not in (0, 1) and not isinstance(isthing, bool):
        message = f"{description}: isthing must be 0 or 1, got {shorten(isthing)}"
        problems.add("bad_category_field", message, action="left out", names_image=False)
        isthing = None
    return Category(
        category_id=category_id,
        name=printable_name,
        supercategory=supercategory if isinstance(supercategory, str) else "",
        keypoints=keypoints,
        keypoint_sigmas=_read_sigmas(entry.get("keypoint_sigmas"), len(keypoints), description, problems),
        skeleton=_read_skeleton(entry.get("skeleton"), description, problems),
        frequency=frequency or "",
        image_count=_read_count(entry.get("image_count"), description, problems),
        isthing=isthing is None or bool(float(isthing)),
    )


def _read_keypoints(values: object, description: str, problems: ProblemHandler) -> tuple[str, ...]:
    if not values:
        return ()
    names = [str(v) if isinstance(v, str | int) and str(v).strip() else None for v in _as_list(values)]
    if names and None not in names and len(set(names)) == len(names):
        return tuple(one_line(str(name)) for name in names)
    message = f"{description}: keypoints must be a list of different names, got {shorten(values)}"
    problems.add("bad_category_field", message, action="left out", names_image=False)
    return ()


def _read_sigmas(
    values: object, num_keypoints: int, description: str, problems: ProblemHandler
) -> tuple[float, ...]:
    if not values:
        return ()
    numbers = [to_number(v) or 0.0 for v in _as_list(values)]
    if len(numbers) == num_keypoints and all(0 < number < 1e6 for number in numbers):
        return tuple(numbers)
    message = (
        f"{description}: keypoint_sigmas must be {num_keypoints} positive numbers, got {shorten(values)}"
    )
    problems.add("bad_category_field", message, action="left out", names_image=False)
    return ()


def _read_skeleton(values: object, description: str, problems: ProblemHandler) -> tuple[tuple[int, int], ...]:
    if not values:
        return ()
    pairs = [[to_int(v) for v in _as_list(pair)] for pair in _as_list(values)] or [[]]
    skeleton = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(skeleton) == len(pairs) and all(a is not None and b is not None for a, b in skeleton):
        return tuple((a, b) for a, b in skeleton if a is not None and b is not None)
    message = f"{description}: skeleton must be a list of pairs of numbers, got {shorten(values)}"
    problems.add("bad_category_field", message, action="left out", names_image=False)
    return ()


def _read_count(value: object, description: str, problems: ProblemHandler) -> int | None:
    count = to_int(value)
    if value is None or (count is not None and count >= 0):
        return count
    message = f"{description}: image_count must be a number of images, got {shorten(value)}"
    problems.add("bad_category_field", message, action="left out", names_image=False)
    return None


def _as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _find_groups(categories: Mapping[int, Category], used_ids: Set[int | None]) -> list[Category]:
    """Return the categories without objects that only name the supercategory of others, as Roboflow writes them."""
    groups = []
    for category in categories.values():
        is_root = (
            category.supercategory.lower() in ("", "none", "null") or category.supercategory == category.name
        )
        members = [c for c in categories.values() if c is not category and c.supercategory == category.name]
        if is_root and members and category.category_id not in used_ids and not category.keypoints:
            groups.append(category)
    return groups


def _check_names(
    path: Path, categories: dict[int, Category], used_ids: Set[int | None], problems: ProblemHandler
) -> None:
    """Remove categories without objects whose name another category has, and raise if two with objects share a name."""
    by_name: dict[tuple[str, bool], list[Category]] = {}
    for category in categories.values():
        by_name.setdefault((category.name, category.isthing), []).append(category)
    for (name, _), same in by_name.items():
        if len(same) == 1:
            continue
        used = [c for c in same if c.category_id in used_ids]
        if len(used) > 1:
            listed = ", ".join(str(c.category_id) for c in used)
            raise DataError(
                f"{path}: category {name!r} appears twice, with ids {listed}; rename one of them, or use one id for both"
            )
        chosen = used[0] if used else same[0]
        for category in same:
            if category is not chosen:
                message = f"{_describe(category)} has no objects and the name of id {chosen.category_id}"
                problems.note("repeated_category", message, action="left out", names_image=False)
                del categories[category.category_id]
