"""Reading of JSON files, and type checks of values from them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeGuard

from hydet.data.errors import DataError, one_line

__all__ = [
    "are_finite",
    "is_finite",
    "is_int",
    "read_json",
    "shorten",
    "to_int",
    "to_number",
    "unused_ids",
]

_NUMBER_TYPES = {int, float}  # exact types, because bool is a subclass of int
_MAX_SHOWN = 60  # characters of a value in a message
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1  # what an int64 array holds
_INT_TEXT = re.compile(r"\s*[+-]?[0-9]{1,19}(\.0*)?\s*")
# First bytes of files that are not JSON, and what they are.
_OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch its content with 'git lfs pull'"),
    (b"<", "an HTML or XML file, such as the error page of a download"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        DataError: if the file is missing, is not a regular file, or is not JSON.
    """
    path = Path(path)
    if "\0" in str(path):
        raise DataError(f"{one_line(str(path))}: is not a path")
    try:
        # A named pipe would block the process until something writes to it.
        if path.exists() and not path.is_file():
            raise DataError(
                f"{path}: is {'a folder' if path.is_dir() else 'not a regular file'}, not a JSON file"
            )
        with path.open("rb") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except RecursionError as error:
        raise DataError(f"{path}: is nested too deeply to be a file of annotations") from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory") from error
    except DataError:
        raise
    except ValueError as error:  # invalid JSON, invalid UTF-8, or a number of thousands of digits
        raise DataError(f"{path}: is not JSON: {_explain(error, path)}") from error


def _explain(error: ValueError, path: Path) -> str:
    """Return why a file is not JSON."""
    with path.open("rb") as file:
        content = file.read(4096)
    start = content.lstrip()
    for signature, name in _OTHER_FILES:
        if start.startswith(signature):
            return f"it is {name}"
    if not content.strip(b"\0 \t\r\n"):
        return "the file is empty" if not content else "the file has only spaces or null bytes"
    if isinstance(error, UnicodeDecodeError):
        before = error.object[max(0, error.start - 40) : error.start].decode(errors="replace")
        return (
            f"byte {error.object[error.start]:#04x} at position {error.start}, after {shorten(before)}, is not "
            f"{error.encoding.upper()}; save the file as UTF-8"
        )
    reason = one_line(str(error))
    if isinstance(error, json.JSONDecodeError):
        if not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string"):
            return f"{reason}; the file may be cut off"
        return f"{reason}, at {shorten(error.doc[error.pos : error.pos + 20])}"
    return "it has a number of thousands of digits" if "digits" in reason else reason


def is_int(value: object) -> TypeGuard[int]:
    """Return True for an integer that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Return True for a number that is finite as a float."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False


def are_finite(values: object) -> TypeGuard[Sequence[float]]:
    """Return True for a list of finite numbers."""
    if not isinstance(values, list | tuple) or not {*map(type, values)} <= _NUMBER_TYPES:
        return False
    try:
        # The sum is finite if all values are (coordinates do not overflow it), and much faster than a loop.
        return math.isfinite(sum(values))
    except OverflowError:
        return False


def to_int(value: object) -> int | None:
    """Return the integer of 64 bits that a value stands for: ``7``, ``7.0`` and ``"7"`` are 7; else None."""
    if type(value) is int:
        return value if _MIN_INT <= value <= _MAX_INT else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else None
    if isinstance(value, str) and _INT_TEXT.fullmatch(value):
        return to_int(int(value.split(".")[0]))
    return None


def to_number(value: object) -> float | None:
    """Return the finite number that a value stands for, such as ``7.5`` or ``"7.5"``; else None."""
    if isinstance(value, str) and "_" not in value:  # float() takes 1_000 for 1000
        try:
            value = float(value)
        except ValueError:
            return None
    return value if is_finite(value) and not isinstance(value, bool) else None


def unused_ids(used: Iterable[int]) -> Iterator[int]:
    """Yield integers of 64 bits above those in ``used``, or if these leave no room, any that are not in ``used``."""
    known = set(used)
    first = max(known, default=0) + 1
    if 0 < first <= _MAX_INT // 2:
        return count(first)
    return (number for number in count(1) if number not in known)


def shorten(value: object) -> str:
    """Return the representation of a value, cut to a length that fits into a message."""
    # Python refuses to print integers of thousands of digits.
    if type(value) is int and abs(value) > 10**_MAX_SHOWN:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested or long numbers
        return f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
