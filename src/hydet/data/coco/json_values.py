"""Reading of JSON files, and type checks of values from them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from hydet.data.errors import DataError

__all__ = ["are_finite", "is_finite", "is_int", "read_json", "shorten"]

_NUMBER_TYPES = {int, float}  # exact types, because bool is a subclass of int
_MAX_SHOWN = 60  # characters of a value in a message


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: if the file is missing or is not JSON.
    """
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # invalid JSON or invalid UTF-8
        raise DataError(f"{path}: is not JSON: {' '.join(str(error).split())}") from error


def is_int(value: object) -> TypeGuard[int]:
    """Return True for an integer that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Return True for a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def are_finite(values: object) -> TypeGuard[Sequence[float]]:
    """Return True for a list of finite numbers."""
    if not isinstance(values, list | tuple) or not {*map(type, values)} <= _NUMBER_TYPES:
        return False
    try:
        # The sum is finite if all values are (coordinates do not overflow it), and much faster than a loop.
        return math.isfinite(sum(values))
    except OverflowError:
        return False


def shorten(value: object) -> str:
    """Return the representation of a value, cut to a length that fits into a message."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
