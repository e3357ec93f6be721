"""Checks of PNG files before and after decoding, which find every damaged chunk.

No PNG file reaches libpng: torchvision's binding to it ends the process where a file is damaged.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["PngFile", "find_exif", "is_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})  # chunks that pixels depend on
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_MAX_COMPRESSION = 1032  # bytes that one compressed byte can stand for
# Adam7 interlacing: first column, first row, and distances of columns and rows of each pass (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class _Chunk(NamedTuple):
    kind: bytes
    data: memoryview


def is_png(start: bytes) -> bool:
    """Return True if a file that starts like this is a PNG file."""
    return start.startswith(_SIGNATURE)


def find_exif(stream: BinaryIO) -> bytes | None:
    """Return the EXIF data of a PNG file, wherever they are in it, without reading the pixels; None without."""
    stream.seek(len(_SIGNATURE))
    while len(start := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"eXIf":
            return stream.read(length)
        if kind == b"IEND":
            return None
        stream.seek(length + 4, io.SEEK_CUR)  # the data and their checksum
    return None


class PngFile:
    """The chunks of a PNG file.

    Args:
        content: the whole file.

    Raises:
        ValueError: if the file is truncated, or a chunk that pixels depend on is damaged or missing.
    """

    def __init__(self, content: memoryview) -> None:
        self._compressed: list[memoryview] = []
        header: memoryview | None = None
        for chunk in _read_chunks(content):
            if chunk.kind == b"IHDR" and header is None:
                header = chunk.data
            elif chunk.kind == b"IDAT":
                self._compressed.append(chunk.data)
        if header is None or len(header) != 13:
            raise ValueError("the PNG file has no valid header")
        self._width: int
        self._height: int
        self._width, self._height, bit_depth, color_type, _, _, interlacing = struct.unpack(
            ">IIBBBBB", header
        )
        self._bits_per_pixel: int = bit_depth * _CHANNELS.get(color_type, 1)
        self._is_interlaced = interlacing == 1
        if sum(map(len, self._compressed)) * _MAX_COMPRESSION < self._num_bytes():
            raise ValueError(f"the PNG file has too few data for {self._width} x {self._height} pixels")

    def check_rows(self) -> None:
        """Check that the data are complete, which costs about as much as decoding.

        Raises:
            ValueError: if rows are missing. Pillow leaves such rows black without an error.
        """
        decompressor = zlib.decompressobj()
        size = 0
        for data in self._compressed:
            size += len(decompressor.decompress(data))
        if size < self._num_bytes():
            raise ValueError("the PNG file has too few rows")

    def _num_bytes(self) -> int:
        """Return the number of bytes before compression; each row starts with the byte of its filter."""
        if not self._is_interlaced:
            return self._height * self._row_bytes(self._width)
        total = 0
        for left, top, column_step, row_step in _PASSES:
            columns = -(-max(self._width - left, 0) // column_step)
            rows = -(-max(self._height - top, 0) // row_step)
            total += rows * self._row_bytes(columns) if columns else 0
        return total

    def _row_bytes(self, columns: int) -> int:
        return 1 + -(-columns * self._bits_per_pixel // 8)


def _read_chunks(content: memoryview) -> Iterator[_Chunk]:
    """Yield the chunks up to the end of the image; verify those that pixels depend on.

    A file without its last chunk is complete if the pixels are; Pillow notices if they are not.
    """
    position = len(_SIGNATURE)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if kind in _NEEDED:
            if end + 4 > len(content):
                raise ValueError(f"the PNG file is truncated inside of chunk {kind.decode('latin-1')!r}")
            (expected,) = struct.unpack_from(">I", content, end)
            if zlib.crc32(content[position + 4 : end]) != expected:
                raise ValueError(f"the PNG file is damaged in chunk {kind.decode('latin-1')!r}")
        yield _Chunk(kind, content[position + 8 : end])
        if kind == b"IEND":
            return
        position = end + 4
