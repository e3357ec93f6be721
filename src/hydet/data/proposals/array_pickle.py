"""Reading of pickles with plain values and numpy arrays, without running their code."""

from __future__ import annotations

import mmap
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np

from hydet.data.errors import DataError, one_line
from hydet.files.pickle_reader import PickleReader

__all__ = ["NUMPY_STAND_INS", "read_array_pickle", "to_array"]

_MAX_REASON = 200  # characters; errors quote what the file contains
_NUMERIC_DTYPE = re.compile(r"[<>=|]?[biuf][1248]")


class _ForeignNameError(pickle.UnpicklingError):
    """Raised for a name that is not that of an array."""


def read_array_pickle(path: str | Path, *, remedy: str = "") -> object:
    """Read a pickle that contains only numbers, strings, lists, tuples, dicts and numeric arrays; also ordered dicts.

    A pickle is a program that can call any function by name. This reader resolves only the few names that arrays need,
    to functions of this module that read bytes, and refuses any other name. It does not use numpy's own unpickling.
    Sizes are checked against the file before anything is allocated.
    Files of Python 2 are supported; their strings are decoded as Latin-1. Members of the reference's ``BoxMode`` become
    integers.

    Args:
        path: the file.
        remedy: text to add to the message if the file contains objects of other classes.

    Raises:
        DataError: if the file cannot be read, is not a pickle, or contains anything else.
    """
    try:
        # A map ends where the file ends, so a broken length cannot allocate more than the file holds.
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _StandInReplacer(len(content)).replace(_Unpickler(cast("IO[bytes]", content)).load())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a broken pickle can raise almost any exception
        reason = f"{path}: is not a pickle of plain values and numeric arrays ({_describe(error)})"
        has_remedy = isinstance(error, _ForeignNameError) and remedy
        raise DataError(f"{reason}; {remedy}" if has_remedy else reason) from error


def _describe(error: Exception) -> str:
    return one_line(str(error))[:_MAX_REASON] or type(error).__name__


class _Unpickler(PickleReader):
    """Reader that resolves only the names in ``_STAND_INS``."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        if module in _NUMPY_MODULES:
            module = "numpy"
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise _ForeignNameError(f"it refers to {module}.{name}, which was not run")
        return stand_in


class _DtypeStandIn:
    """Replaces ``numpy.dtype``."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not _NUMERIC_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays must be numeric, got dtype {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        byte_order = state[1]
        if byte_order in ("<", ">"):
            self.value = self.value.newbyteorder(byte_order)


class _ArrayStandIn:
    """Replaces ``numpy.ndarray``, which pickles create empty and fill afterwards."""

    def __init__(self) -> None:
        self._content: object = None
        self._dtype: object = None
        self._shape: object = None
        self._order: Literal["C", "F"] = "C"
        self._axes: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.fill(content, dtype, shape, order="F" if is_fortran else "C")

    def fill(
        self, content: object, dtype: object, shape: object, order: Literal["C", "F"], axes: Any = None
    ) -> None:
        """Set what ``to_array`` makes the array from."""
        self._content, self._dtype, self._shape, self._order, self._axes = content, dtype, shape, order, axes

    @property
    def num_bytes(self) -> int:
        """Size of the content."""
        return len(self._content) if isinstance(self._content, str | bytes | bytearray) else 0

    def to_array(self) -> np.ndarray:
        """Return the array.

        Raises:
            pickle.UnpicklingError: if it has no content, or no shape.
            ValueError: if the content has another size.
        """
        shape = self._shape
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array has no shape, but {str(shape)[:50]}")
        array = _to_numbers(self._content, self._dtype).reshape(shape, order=self._order)
        return array if self._axes is None else array.transpose(self._axes)


def _to_numbers(content: object, dtype: object) -> np.ndarray:
    if not isinstance(dtype, _DtypeStandIn):
        raise pickle.UnpicklingError("an array has no dtype")
    return np.frombuffer(_to_bytes(content), dtype=dtype.value)


def _to_bytes(content: object, encoding: object = "latin1") -> bytes | bytearray:
    """Return bytes, which pickle protocols below 3 store as text."""
    if isinstance(content, str):
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes have the encoding {encoding!r}")
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"expected bytes, got {type(content).__name__}")
    return content


def _empty_bytes() -> bytes:
    return b""


def _empty_array(subtype: object, shape: object, code: object) -> _ArrayStandIn:
    return _ArrayStandIn()


def _ordered_dict(items: Any = ()) -> dict[object, object]:
    return dict(items)  # dicts are ordered


def _scalar(dtype: object, content: object) -> object:
    return _to_numbers(content, dtype)[0].item()


def _array_from_buffer(
    content: object, dtype: object, shape: Any, order: object, axes: Any = None
) -> _ArrayStandIn:
    array = _ArrayStandIn()
    array.fill(content, dtype, shape, "F" if order == "F" else "C", axes)
    return array


class _Function:
    """Calls a function of this module. Unlike a function, it has no attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)


_NUMPY_MODULES = frozenset(
    f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")
)
_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _ArrayStandIn,
    ("numpy", "dtype"): _DtypeStandIn,
    ("numpy", "_reconstruct"): _Function(_empty_array),
    ("numpy", "scalar"): _Function(_scalar),
    ("numpy", "_frombuffer"): _Function(_array_from_buffer),
    ("_codecs", "encode"): _Function(_to_bytes),
    ("__builtin__", "bytes"): _Function(_empty_bytes),
    ("collections", "OrderedDict"): _Function(_ordered_dict),
    ("detectron2.structures.boxes", "BoxMode"): int,
}


# For other unpicklers that resolve names, by module and name; ``to_array`` converts the arrays.
NUMPY_STAND_INS: dict[str, Callable[..., object]] = {
    f"{module}.{name}": stand_in
    for (package, name), stand_in in _STAND_INS.items()
    if package == "numpy"
    for module in (["numpy"] if isinstance(stand_in, type) else sorted(_NUMPY_MODULES))
}


def to_array(value: object) -> object:
    """Return an array instead of its stand-in, and any other value as it is."""
    return value.to_array() if isinstance(value, _ArrayStandIn) else value


class _StandInReplacer:
    """Replaces the stand-ins in a nested value by arrays, each object once: objects may appear many times.

    Args:
        max_bytes: size of the file, which bounds that of all arrays. Many arrays may share one content.
    """

    def __init__(self, max_bytes: int) -> None:
        self._remaining = max_bytes
        self._results: dict[int, object] = {}
        self._open: set[int] = set()  # containers around the current value

    def replace(self, value: object) -> object:
        """Return the value with arrays in place of stand-ins.

        Raises:
            pickle.UnpicklingError: if it contains itself, or anything but plain values and stand-ins.
        """
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        if not isinstance(value, dict | list | tuple | _ArrayStandIn):
            raise pickle.UnpicklingError(f"it contains a {type(value).__name__}")
        key = id(value)
        if key in self._open:
            raise pickle.UnpicklingError("it contains itself")
        if key in self._results:
            return self._results[key]
        if isinstance(value, _ArrayStandIn):
            self._remaining -= value.num_bytes
            if self._remaining < 0:
                raise pickle.UnpicklingError("its arrays are larger than the file")
            self._results[key] = value.to_array()
        else:
            self._open.add(key)
            if isinstance(value, dict):
                self._results[key] = {self.replace(k): self.replace(item) for k, item in value.items()}
            else:
                self._results[key] = type(value)(self.replace(item) for item in value)
            self._open.remove(key)
        return self._results[key]
