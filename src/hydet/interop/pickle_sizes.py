"""Check what the pickle of a torch file would allocate, before torch reads it.

A pickle may declare a tensor that is larger than the file, which torch then allocates, or reads beyond the end of a buffer.
The pickle is read here with stand-ins for everything that it refers to, so that nothing of it runs.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TypeGuard

from hydet.files.pickle_reader import PickleReader

__all__ = ["StorageSize", "read_sizes"]

# Bytes per element of the classes in torch that a pickle names as types of storages.
_BYTES_PER_ELEMENT: Mapping[str, int] = {
    "UntypedStorage": 1, "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "ShortStorage": 2, "HalfStorage": 2,
    "BFloat16Storage": 2, "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "QUInt8Storage": 1, "QInt8Storage": 1, "QInt32Storage": 4,
    "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
}  # fmt: skip
# These functions of torch take a storage, an offset, a shape and strides.
_REBUILD = frozenset(f"_rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor"))
# A tensor may show the same memory many times (``expand``); copies of it need this many times the file at most.
_MAX_REPEATS = 100
# Text that calls convert to bytes, each time anew, may be this many times as long as the file.
_MAX_TEXT_RATIO = 20


@dataclass(frozen=True)
class StorageSize:
    """Size that a pickle declares for a storage.

    Args:
        num_bytes: its size.
        bytes_per_element: size of its elements.
    """

    num_bytes: int
    bytes_per_element: int


class _StandIn:
    """Replaces a class or function that a pickle refers to; calls record the arguments."""

    name: str
    arguments: tuple[object, ...]

    def __new__(cls, *arguments: object) -> _StandIn:
        stand_in = super().__new__(cls)
        stand_in.arguments = arguments
        return stand_in

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def read_sizes(stream: IO[bytes], max_bytes: int) -> tuple[object, dict[str, StorageSize]]:
    """Read one pickle, which ends before the rest of the stream, without running anything in it.

    Args:
        stream: a stream that can seek.
        max_bytes: size of the file, which bounds the sizes of tensors.

    Returns:
        The object, with stand-ins for all that is not a plain value, and the sizes of storages by key.

    Raises:
        Exception: of any kind, if the pickle is broken, or declares sizes that do not fit.
    """
    reader = _SizeReader(stream, max_bytes)
    return reader.load(), reader.storages


class _SizeReader(PickleReader):
    """Reader that resolves no names."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        super().__init__(stream)
        self.storages: dict[str, StorageSize] = {}
        self._max_bytes = max_bytes
        self._remaining_text = _MAX_TEXT_RATIO * max_bytes
        self._types: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> type:
        """Return a stand-in that belongs to this reader; a pickle can change attributes of a class."""
        if (module, name) not in self._types:
            self._types[module, name] = self._make_type(module, name)
        return self._types[module, name]

    def _make_type(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return type(name, (OrderedDict,), {})
        max_bytes = self._max_bytes

        def create(cls: type[_StandIn], *arguments: object) -> _StandIn:
            _check_call(name, arguments, max_bytes)
            self._count_text(arguments)
            return _StandIn.__new__(cls, *arguments)

        return type("StandIn", (_StandIn,), {"name": name, "__new__": create})

    def _count_text(self, arguments: Sequence[object]) -> None:
        self._remaining_text -= sum(len(value) for value in arguments if isinstance(value, str | bytes))
        if self._remaining_text < 0:
            raise pickle.UnpicklingError("its texts are much larger than the file")

    def persistent_load(self, pid: object) -> StorageSize:
        """Return the size of a storage."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something else than a storage")
        _, kind, key, _, count = pid[:5]
        bytes_per_element = _BYTES_PER_ELEMENT.get(getattr(kind, "name", ""))
        if bytes_per_element is None or not isinstance(key, str) or not _is_count(count):
            raise pickle.UnpicklingError("a storage has no type, name or size")
        size = StorageSize(count * bytes_per_element, bytes_per_element)
        if self.storages.setdefault(key, size).num_bytes < size.num_bytes:
            raise pickle.UnpicklingError(f"storage {key} has two sizes")
        return size


def _check_call(name: str, arguments: Sequence[object], max_bytes: int) -> None:
    """Check that a call allocates no more than the file explains.

    Raises:
        pickle.UnpicklingError: if it does.
    """
    if name == "_rebuild_from_type_v2" and len(arguments) > 2:  # calls another function
        function, inner = getattr(arguments[0], "name", ""), arguments[2]
        if isinstance(inner, tuple | list):
            _check_call(function, inner, max_bytes)
    elif name in _REBUILD:
        _check_tensor(arguments, max_bytes)
    elif name == "encode" and any(encoding != "latin1" for encoding in arguments[1:]):
        raise pickle.UnpicklingError("text has another encoding than latin1, which would be imported")
    elif name != "Size" and not name.startswith("_rebuild"):
        # bytearray(n) and the classes of tensors allocate what their arguments say.
        numbers = [n for argument in arguments for n in _integers(argument)]
        if math.prod(n for n in numbers if n > 0) > max_bytes:
            raise pickle.UnpicklingError(f"{name} takes more memory than the file has bytes")


def _check_tensor(arguments: Sequence[object], max_bytes: int) -> None:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StorageSize) or not _is_count(offset):
        raise pickle.UnpicklingError("a tensor has no storage")
    sizes, steps = _integers(shape), _integers(strides)
    if len(sizes) != len(steps) or min([*sizes, *steps], default=0) < 0:
        raise pickle.UnpicklingError("a tensor has no shape")
    if 0 in sizes:
        return
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps))
    if (last + 1) * storage.bytes_per_element > storage.num_bytes:
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(sizes)} is larger than its storage")
    if math.prod(sizes) > _MAX_REPEATS * max_bytes:
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(sizes)} is much larger than the file")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _integers(value: object) -> list[int]:
    """Return the integers in a number, a list of numbers or a stand-in for ``torch.Size``."""
    if isinstance(value, _StandIn) and value.name == "Size":
        return [n for argument in value.arguments for n in _integers(argument)]
    items = value if isinstance(value, tuple | list) else [value]
    return [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
