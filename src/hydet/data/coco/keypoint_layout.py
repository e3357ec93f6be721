"""Names, mirror pairs, tolerances and skeleton of the keypoints in a COCO file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydet.data.coco.categories import Category
from hydet.data.coco.json_file import CocoFile
from hydet.data.coco.mirror_pairs import find_mirror_pairs
from hydet.data.coco.problems import ProblemHandler
from hydet.data.errors import DataError

__all__ = ["KeypointLayout", "layout_of_names", "read_keypoint_layout"]

_PERSON_KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
# From COCO's keypoint evaluation: standard deviations of human annotations relative to the object's scale.
_PERSON_SIGMAS = tuple(
    thousandths / 1000
    for thousandths in (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
)
# Pairs of keypoints to connect, numbered from 1 as in COCO's annotation files.
_PERSON_SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11), (2, 3),
    (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
_MAX_LISTED = 6  # names in a message
_DEFAULT_SIGMA = 0.05  # about the mean of COCO's sigmas for the head and the arms


class KeypointLayout(NamedTuple):
    """The keypoints that all objects of a dataset share; see :class:`hydet.data.Metadata` for the fields.

    ``can_mirror`` is ``mirrors_keypoints`` there.
    """

    names: tuple[str, ...] = ()
    sigmas: tuple[float, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[str, str], ...] = ()
    can_mirror: bool = True


def read_keypoint_layout(
    file: CocoFile,
    class_of: Mapping[int, int],
    *,
    with_keypoints: bool | None,
    sigmas: Sequence[float] | None,
    flip_pairs: Sequence[Sequence[str]] | None,
    problems: ProblemHandler,
) -> KeypointLayout:
    """Read the keypoints of the categories in use.

    Args:
        file: the content of the file.
        class_of: contiguous class of each category id in use.
        with_keypoints: False for no keypoints, True to require them, None to read them if a category has any.
        sigmas: tolerances; None for those of COCO for people, those of the file, or 0.05.
        flip_pairs: pairs of names to swap in a mirrored image; None for names that differ in a word for the side.
        problems: receives what the names and numbers leave open.

    Returns:
        The layout; empty if no keypoints are read.

    Raises:
        DataError: if categories have different keypoints, or there are none and ``with_keypoints`` is True.
    """
    if with_keypoints is False:
        return KeypointLayout()
    # The first category with each tuple of keypoint names.
    categories: dict[tuple[str, ...], Category] = {}
    for category_id, candidate in file.categories.items():
        if category_id in class_of and candidate.keypoints:
            categories.setdefault(candidate.keypoints, candidate)
    if len(categories) > 1:
        first, second = (candidate.name for candidate in list(categories.values())[:2])
        raise DataError(
            f"{file.path}: categories {first!r} and {second!r} have different keypoints; "
            "choose one by class_names, or set with_keypoints=false"
        )
    category = next(iter(categories.values()), None)
    names = _number_nameless(file, class_of, problems) if category is None else category.keypoints
    if not names:
        if with_keypoints:
            raise DataError(
                f"{file.path}: with_keypoints is true, but no category and no object has keypoints"
            )
        return KeypointLayout()
    if sigmas is None and category is not None:
        sigmas = _PERSON_SIGMAS if names == _PERSON_KEYPOINTS else category.keypoint_sigmas
    pairs = find_mirror_pairs(names) if flip_pairs is None else flip_pairs
    can_mirror = flip_pairs is not None or bool(pairs) or len(names) == 1
    if not can_mirror:
        message = (
            f"the names of the keypoints ({_list(names)}) show no left and right ones, so models of keypoints see no "
            "mirrored images; set keypoint_flip_pairs to the pairs, or to [] if no keypoint has a side"
        )
        problems.note("keypoints_without_pairs", message, action="not mirrored", names_image=False)
    return KeypointLayout(
        names=names,
        sigmas=tuple(sigmas) if sigmas else (_DEFAULT_SIGMA,) * len(names),
        flip_pairs=tuple((str(a), str(b)) for a, b in pairs),
        skeleton=() if category is None else _read_skeleton(names, category.skeleton, problems),
        can_mirror=can_mirror,
    )


def layout_of_names(names: Sequence[str]) -> KeypointLayout:
    """Return the layout of keypoints of which only the names are known; those of COCO's people are complete."""
    names = tuple(names)
    is_person = names == _PERSON_KEYPOINTS
    pairs = tuple(find_mirror_pairs(names))
    return KeypointLayout(
        names=names,
        sigmas=_PERSON_SIGMAS if is_person else (_DEFAULT_SIGMA,) * len(names),
        flip_pairs=pairs,
        skeleton=tuple((names[a - 1], names[b - 1]) for a, b in _PERSON_SKELETON) if is_person else (),
        can_mirror=bool(pairs) or len(names) <= 1,
    )


def _number_nameless(
    file: CocoFile, class_of: Mapping[int, int], problems: ProblemHandler
) -> tuple[str, ...]:
    """Return the numbers 1 ... K as names if objects have keypoints that no category names; else an empty tuple."""
    lengths: Counter[int] = Counter()
    have_visibility = True
    for entry in file.annotation_entries:
        values = entry.get("keypoints") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(values, list) or not values:
            continue
        if file.category_ids.find(entry.get("category_id")) in class_of:
            lengths[len(values)] += 1
            have_visibility = have_visibility and all(v in (0, 1, 2) for v in values[2::3])
    if not lengths:
        return ()
    ((length, _),) = lengths.most_common(1)
    # Three numbers per keypoint, or two without the visibility.
    count = length // 3 if length % 3 == 0 and (have_visibility or length % 2) else length // 2
    if length not in (2 * count, 3 * count):
        return ()
    message = f"objects have {count} keypoints, but no category names them"
    problems.note("nameless_keypoints", message, action=f"numbered from 1 to {count}", names_image=False)
    return tuple(str(number + 1) for number in range(count))


def _read_skeleton(
    names: Sequence[str], pairs: Sequence[tuple[int, int]], problems: ProblemHandler
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of names to connect. COCO counts keypoints from 1 here; some tools count from 0."""
    numbers = [number for pair in pairs for number in pair]
    first = 0 if 0 in numbers and max(numbers) < len(names) else 1
    if first == 0:
        message = "the skeleton has the keypoint 0, but COCO's skeletons count from 1"
        problems.note("skeleton_from_0", message, action="counted from 0", names_image=False)
    valid = range(first, first + len(names))
    return tuple((names[a - first], names[b - first]) for a, b in pairs if a in valid and b in valid)


def _list(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_MAX_LISTED])}{', ...' if len(names) > _MAX_LISTED else ''}"
