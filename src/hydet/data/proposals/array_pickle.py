"""Reading pickles of plain values and numpy arrays without running anything that they ask for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hydet.data.errors import DataError

__all__ = ["read_array_pickle"]

_DTYPE = re.compile(r"[<>=|]?[biuf][1248]")


def read_array_pickle(path: str | Path) -> Any:
    """What a pickle holds, provided it is made of numbers, strings, lists, tuples, dicts and arrays of numbers.

    A pickle is a program that calls whatever it names. Here the few names that numpy's arrays need stand for functions
    of this file, which only look at bytes, and any other name is refused; numpy's own unpickling is not used either.
    Files of Python 2 are read too, their strings as Latin-1. Members of the reference's ``BoxMode`` come as integers.

    Args:
        path: of the file.

    Raises:
        DataError: if the file cannot be read, is no pickle, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a broken pickle can end in almost any
        raise DataError(f"{path}: not a pickle of plain values and arrays of numbers ({error})") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY:
            module = "numpy"
        found = _KNOWN.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which was not run")
        return found


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays must be of numbers, not of {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``, first empty, then filled."""

    value = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _numbers(content, dtype).reshape(shape, order="F" if fortran else "C")


def _numbers(content: Any, dtype: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array has no dtype")
    return np.frombuffer(_bytes(content), dtype=dtype.value)


def _bytes(content: Any, encoding: str = "latin1") -> bytes | bytearray:
    """Bytes, which protocols before the third write as text."""
    if isinstance(content, str):
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r}")
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"bytes were expected, not {type(content).__name__}")
    return content


def _no_bytes() -> bytes:
    return b""


def _empty(subtype: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, content: Any) -> Any:
    return _numbers(content, dtype)[0].item()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    array = _Array()
    array.value = _numbers(content, dtype).reshape(shape, order="F" if order == "F" else "C")
    if axes is not None:
        array.value = array.value.transpose(axes)
    return array


_NUMPY = frozenset(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric"))
_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "_reconstruct"): _empty,
    ("numpy", "scalar"): _scalar,
    ("numpy", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("detectron2.structures.boxes", "BoxMode"): int,
}


def _plain(value: Any) -> Any:
    """The same with arrays instead of what stood for them."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise pickle.UnpicklingError(f"it holds {value!r}")
