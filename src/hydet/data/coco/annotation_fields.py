"""Single fields of COCO annotations, checked for type and range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydet.data.coco.json_file import ImageEntry
from hydet.data.coco.json_values import are_finite, shorten, to_number
from hydet.data.coco.problems import ProblemHandler
from hydet.data.coco.regions import FAR_OUTSIDE

__all__ = ["read_area", "read_flag", "read_keypoints", "read_numbers"]

_MAX_AREA = 1e15  # square pixels


def read_flag(entry: Mapping[str, object], key: str, description: str, problems: ProblemHandler) -> bool:
    """Return the value of a field that is 0 or 1, such as ``iscrowd``; a missing one is 0.

    Other forms of 0 and 1, such as ``"0"`` and ``false``, are reported; anything else is reported and read as 0.
    """
    value = entry.get(key)
    if value is None or (type(value) is int and value in (0, 1)):
        return bool(value)
    number = float(value) if isinstance(value, bool) else to_number(value)
    if number in (0, 1):
        message = f"{description}: {key} is {shorten(value)}"
        problems.note("other_number_format", message, action="read as number")
        return bool(number)
    problems.add("bad_flag", f"{description}: {key} must be 0 or 1, got {shorten(value)}", action="read as 0")
    return False


def read_area(entry: Mapping[str, object], description: str, problems: ProblemHandler) -> float | None:
    """Return the positive ``area`` in square pixels, or None if there is none that can be used."""
    value = entry.get("area")
    if value is None:
        return None
    if type(value) is float and 0 < value <= _MAX_AREA:  # the usual case, without further calls
        return value
    area = to_number(value)
    if area is None or not 0 < area <= _MAX_AREA:
        message = f"{description}: area must be a positive number, got {shorten(value)}"
        problems.add("bad_area", message, action="computed")
        return None
    if isinstance(value, str):
        message = f"{description}: area is {shorten(value)}"
        problems.note("other_number_format", message, action="read as number")
    return float(area)


def read_numbers(
    value: object, name: str, description: str, problems: ProblemHandler
) -> Sequence[float] | None:
    """Return a list of finite numbers, or None if the value is something else.

    Args:
        value: numbers, or text that stands for numbers, which is reported.
        name: name of the field, for messages.
        description: file name and annotation id, for messages.
        problems: receives the problems.
    """
    if are_finite(value):
        return value
    if not isinstance(value, list) or not any(isinstance(v, str) for v in value):
        return None
    numbers = [to_number(v) for v in value]
    finite = [number for number in numbers if number is not None]
    if len(finite) < len(numbers):
        return None
    message = f"{description}: {name} is {shorten(value)}"
    problems.note("other_number_format", message, action="read as numbers")
    return finite


def read_keypoints(
    value: object, num_keypoints: int, description: str, image: ImageEntry, problems: ProblemHandler
) -> Sequence[float] | None:
    """Return x, y and visibility of each keypoint, concatenated, or None if they cannot be used.

    Args:
        value: the value of ``keypoints``.
        num_keypoints: number K of keypoints per object; 2 K numbers are read as visible points, except (0, 0).
        description: file name and annotation id, for messages.
        image: the image of the annotation.
        problems: receives the problems.

    Raises:
        DataError: if the keypoints are broken and the policy is ``"raise"``.
    """
    values = read_numbers(value, "keypoints", description, problems)
    limit = FAR_OUTSIDE * max(image.height, image.width)
    if values is not None and len(values) == 2 * num_keypoints:
        message = f"{description}: keypoints have no visibility"
        problems.note("keypoints_without_visibility", message, action="read as visible")
        points = zip(values[0::2], values[1::2])
        values = [number for x, y in points for number in (x, y, 2 if (x, y) != (0, 0) else 0)]
    if values is None or len(values) != 3 * num_keypoints:
        got = len(value) if isinstance(value, list) and values is not None else shorten(value)
        reason = f"keypoints must be {3 * num_keypoints} numbers, got {got}"
    elif min(values) < -limit or max(values) > limit:
        reason = f"keypoints {shorten(values)} lie far outside the image of {image.width} x {image.height}"
    else:
        if not {0, 1, 2}.issuperset(values[2::3]):
            message = f"{description}: visibility must be 0, 1 or 2, got {shorten(list(values[2::3]))}"
            problems.add("bad_visibility", message, action="read as visible if above 0")
            values = [
                (2 if v > 0 else 0) if i % 3 == 2 and v not in (0, 1, 2) else v for i, v in enumerate(values)
            ]
        return values
    problems.add("bad_keypoints", f"{description}: {reason}", action="left out")
    return None
