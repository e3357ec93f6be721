"""Read files of tensors that may be damaged or hostile: nothing in them runs, and no size is taken on trust."""

from __future__ import annotations

import io
import mmap
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Literal, TypeAlias, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from hydet.data import DataError
from hydet.files.file_kinds import describe_content

from .dropped_values import dropped_values
from .pickle_sizes import read_sizes

__all__ = ["STATE_DICT_KEYS", "FileKind", "read_safetensors_file", "read_torch_file", "sniff_kind"]

# Keys of the state dict in a file that also holds other values, of which the first is used.
STATE_DICT_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "blobs")
FileKind: TypeAlias = Literal["safetensors", "torch", "pickle"]

_MAX_REASON = 200  # characters; errors quote what the file contains
# torch does not compress. Archives that were packed again may unpack to this many times their size, and to this many
# bytes in any case; a bomb unpacks to more.
_MAX_RATIO, _MIN_LIMIT = 20, 2**24
_FOREIGN_NAME = re.compile(r"GLOBAL (\S+) was not an allowed global")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of files that torch wrote before version 1.6
_LEGACY_START = pickle.dumps(_LEGACY_MAGIC, protocol=2)[2:]  # without the number of the protocol
_START_BYTES = 1024


def sniff_kind(path: Path) -> FileKind:
    """Return the format of a weight file by its content, and by its suffix if the content is of none.

    Raises:
        DataError: if the file cannot be read, or is something else; the message names it.
    """
    start = _read_start(path)
    if start.startswith(b"PK\x03\x04") or _LEGACY_START in start[:32]:
        return "torch"
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return "safetensors"
    if path.suffix == ".pkl" and start.startswith((b"(", b"}")):  # older protocols are printable text
        return "pickle"
    if path.suffix == ".pkl":
        raise DataError(
            _name_content(path, start, "a pickle of weights") or f"{path} is damaged or not a pickle"
        )
    return "torch"


def read_torch_file(path: Path, *, drop_values: bool = False) -> object:
    """Read a file of ``torch.save`` to the CPU, without running anything in it.

    Args:
        path: the file, of any version of torch.
        drop_values: read files that hold arrays of NumPy and a few common classes beside the weights, see
            ``dropped_values``.

    Returns:
        Tensors, numbers, strings, and containers of them; with ``drop_values``, also stand-ins.

    Raises:
        DataError: if the file is damaged, is something else, declares larger sizes than it has, or holds objects that
            only code can restore. The message names the file.
    """
    start = _read_start(path)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise DataError(
            _name_content(path, start, "a file of torch.save") or f"{path} is damaged or not a torch file"
        )
    key: str | None = None
    allowed = dropped_values() if drop_values else []
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # torch warns of versions of pickle that it reads all the same
            key = _state_dict_key(_check_sizes(path, is_archive=start.startswith(b"PK")))
            with path.open("rb") as file:  # given a path, torch would read other formats by the suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is") from error
    except Exception as error:  # a broken file can raise almost any exception
        raise DataError(f"{path} {_explain(error, path, key)}") from error


def read_safetensors_file(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises:
        DataError: if the file is damaged or something else. The message names the file.
    """
    start = _read_start(path)
    num_bytes = int.from_bytes(start[:8], "little")  # size of the header
    if len(start) < 8 or num_bytes > path.stat().st_size - 8:
        line = _name_content(path, start, "a safetensors file") if start[8:9] != b"{" else None
        sizes = f"its header has {num_bytes} bytes, the file {path.stat().st_size}"
        raise DataError(line or f"{path} is damaged: {sizes}; it may be incomplete")
    try:
        return load_file(path)
    except Exception as error:  # a broken header can raise almost any exception
        raise DataError(f"{path} is damaged: {_describe(error)}") from error


def _read_start(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a named pipe would block
        raise DataError(f"{path} is not a regular file")
    try:
        with path.open("rb") as file:
            return file.read(_START_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _name_content(path: Path, start: bytes, expected: str) -> str | None:
    """Return a line that says what a file is instead of what was expected, or None if that is unknown."""
    if start and not start.strip(b"\x00"):
        return f"{path} is damaged: it starts with nothing but zero bytes; it was not written or copied completely"
    description = describe_content(start)
    return f"{path} is not {expected}, but {description}" if description is not None else None


def _check_sizes(path: Path, *, is_archive: bool) -> object:
    """Check every size in a file of ``torch.save`` against the bytes that the file has.

    Returns:
        The object in the file, with stand-ins for all that is not a plain value.

    Raises:
        Exception: of any kind, if the file is broken or a size does not fit.
    """
    num_bytes = path.stat().st_size
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            return _check_archive(archive, num_bytes)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        stream = cast("IO[bytes]", content)
        magic, _ = read_sizes(stream, num_bytes)
        if magic != _LEGACY_MAGIC:
            raise ValueError("it is a pickle, but not one of torch.save")
        for _ in ("version", "byte order"):
            read_sizes(stream, num_bytes)
        loaded, storages = read_sizes(stream, num_bytes)
        declared = sum(storage.num_bytes for storage in storages.values())
        if declared > num_bytes - content.tell():
            raise ValueError(f"its tensors have {declared} bytes, the file {num_bytes}")
        return loaded


def _check_archive(archive: zipfile.ZipFile, num_bytes: int) -> object:
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_MAX_RATIO * num_bytes, _MIN_LIMIT):
        raise ValueError(f"it has {num_bytes} bytes and would unpack to {unpacked}")
    sizes = {
        member.filename.lower(): member.file_size for member in members
    }  # torch ignores the case of names
    if len(sizes) < len(members):
        raise ValueError("it has two records of one name")
    folder = members[0].filename.partition("/")[0]
    if f"{folder}/constants.pkl".lower() in sizes:
        raise ValueError("it is a TorchScript program; save the state dict of the model alone")
    if f"{folder}/data.pkl".lower() not in sizes:
        raise ValueError("it is a zip archive, but not one of torch.save")
    with archive.open(f"{folder}/data.pkl") as record:
        loaded, storages = read_sizes(io.BytesIO(record.read()), num_bytes)
    for key, storage in storages.items():
        available = sizes.get(f"{folder}/data/{key}".lower(), 0)
        if storage.num_bytes > available:
            raise ValueError(f"storage {key} has {available} bytes of {storage.num_bytes}")
    return loaded


def _state_dict_key(loaded: object) -> str | None:
    """Return the key of the state dict in a file that also holds other values."""
    if not isinstance(loaded, dict):
        return None
    return next((key for key in STATE_DICT_KEYS if isinstance(loaded.get(key), dict)), None)


def _explain(error: Exception, path: Path, key: str | None) -> str:
    foreign = _FOREIGN_NAME.search(str(error))
    if foreign is None and not (isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error)):
        return f"is damaged or not a torch file: {_describe(error)}"
    names = f": it refers to {foreign[1]}, and" if foreign is not None else ";"
    index = "" if key is None else f"['{key}']"
    return (
        f"holds more than tensors{names} loading that would run code from the file; if you trust its source, save the state "
        f"dict alone: python -c \"import torch; torch.save(torch.load('{path.name}', 'cpu', weights_only=False){index}, "
        "'weights.pth')\""
    )


def _describe(error: Exception) -> str:
    return " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
