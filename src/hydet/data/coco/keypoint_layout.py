"""Names, mirror pairs, tolerances and skeleton of the keypoints in a COCO file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydet.data.coco.categories import Category
from hydet.data.coco.json_file import CocoFile
from hydet.data.errors import DataError

__all__ = ["KeypointLayout", "read_keypoint_layout"]

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
_DEFAULT_SIGMA = 0.05  # about the mean of COCO's sigmas for the head and the arms


class KeypointLayout(NamedTuple):
    """The keypoints that all objects of a dataset share; see :class:`hydet.data.Metadata` for the fields."""

    names: tuple[str, ...] = ()
    sigmas: tuple[float, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[str, str], ...] = ()


def read_keypoint_layout(
    file: CocoFile,
    class_of: Mapping[int, int],
    *,
    with_keypoints: bool | None,
    sigmas: Sequence[float] | None,
    flip_pairs: Sequence[Sequence[str]] | None,
) -> KeypointLayout:
    """Read the keypoints of the categories in use.

    Args:
        file: the content of the file.
        class_of: contiguous class of each category id in use.
        with_keypoints: False for no keypoints, True to require them, None to read them if a category has any.
        sigmas: tolerances; None for those of COCO for people, those of the file, or 0.05.
        flip_pairs: pairs of names to swap in a mirrored image; None for names that differ in "left" and "right".

    Returns:
        The layout; empty if no keypoints are read.

    Raises:
        DataError: if categories have different keypoints, or none has any and ``with_keypoints`` is True.
    """
    if with_keypoints is False:
        return KeypointLayout()
    # The first category with each tuple of keypoint names.
    categories: dict[tuple[str, ...], Category] = {}
    for category_id, category in file.categories.items():
        if category_id in class_of and category.keypoints:
            categories.setdefault(category.keypoints, category)
    if len(categories) > 1:
        first, second = (category.name for category in list(categories.values())[:2])
        raise DataError(
            f"{file.path}: categories {first!r} and {second!r} have different keypoints; "
            "choose one by class_names, or set with_keypoints=false"
        )
    if not categories:
        if with_keypoints:
            raise DataError(f"{file.path}: with_keypoints is true, but no category has keypoints")
        return KeypointLayout()
    ((names, category),) = categories.items()
    if sigmas is None:
        sigmas = _PERSON_SIGMAS if names == _PERSON_KEYPOINTS else category.keypoint_sigmas
    pairs = _mirror_pairs(names) if flip_pairs is None else flip_pairs
    return KeypointLayout(
        names=names,
        sigmas=tuple(sigmas) if sigmas else (_DEFAULT_SIGMA,) * len(names),
        flip_pairs=tuple((str(a), str(b)) for a, b in pairs),
        skeleton=tuple(
            (names[a - 1], names[b - 1])  # COCO counts keypoints from 1 here
            for a, b in category.skeleton
            if 0 < a <= len(names) and 0 < b <= len(names)
        ),
    )


def _mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that differ only in "left" and "right"."""
    pairs = []
    for name in names:
        for left, right in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
            mirrored = name.replace(left, right)
            if mirrored != name and mirrored in names:
                pairs.append((name, mirrored))
    return pairs
