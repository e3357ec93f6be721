"""Reading of whole files, and descriptions of files that are no images."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from hydet.data.errors import DataError
from hydet.files.file_kinds import decode_text, is_markup, is_web_page, quote_text

__all__ = ["check_regular_file", "describe_content", "describe_error", "read_bytes"]

_KINDS_OF_FILE = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_EXPORT = "export it as JPEG or PNG"
# Start of the content -> what the file is, and the remedy.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the image itself; `git lfs pull` downloads the image",
    ),
    (
        b"version https://hawser",
        "a Git LFS pointer, not the image itself; `git lfs pull` downloads the image",
    ),
    (b"/annex/objects/", "a git-annex pointer, not the image itself; `git annex get` downloads the image"),
    (b"\x00\x05\x16\x07", "a companion file of macOS without an image; remove it"),
    (b"%PDF", f"a PDF document; {_EXPORT}"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"\x93NUMPY", f"a NumPy array; {_EXPORT}"),
    (b"\x89HDF", f"an HDF5 file; {_EXPORT}"),
    (b"\xff\xd8\xff", "a JPEG file with a damaged header"),
    (b"GIF8", "a GIF file with a damaged header"),
    (b"II*\x00", "a TIFF file with a damaged header, or of an unknown kind"),
    (b"MM\x00*", "a TIFF file with a damaged header, or of an unknown kind"),
    (b"RIFF", "a WebP file with a damaged header, or another RIFF file"),
    (b"BM", "a BMP file with a damaged header"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def check_regular_file(path: str | Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        DataError: if there is no such file, or it is a folder, pipe, socket or device, which could block forever.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if os.path.islink(path):
            raise DataError(f"{path} is a link to a file that does not exist") from error
        raise DataError(f"{path}: {describe_error(error)}") from error
    for is_kind, description in _KINDS_OF_FILE:
        if is_kind(status.st_mode):
            raise DataError(f"{path} is {description}, not a file")
    return status.st_size


def read_bytes(path: str | Path, *, max_bytes: int) -> np.ndarray:
    """Read a whole file.

    Args:
        path: path of the file.
        max_bytes: largest size in bytes.

    Returns:
        ``(size,)`` uint8 content.

    Raises:
        DataError: if the file is missing, empty, too large or not a regular file.
    """
    size = check_regular_file(path)
    if size > max_bytes:
        raise DataError(f"{path}: the file has {size / 1e9:.1f} GB, too many for an image")
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {describe_error(error)}") from error
    if content.size == 0:
        raise DataError(f"{path} is an empty file")
    return content


def describe_error(error: Exception) -> str:
    """Return the message of an error on one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def describe_content(start: bytes) -> str | None:
    """Return what a file is that no image decoder recognizes, such as "a Git LFS pointer", or None.

    Args:
        start: the first bytes of the file, about a thousand.
    """
    for signature, description in _SIGNATURES:
        if start.startswith(signature):
            return description
    if start[4:8] == b"ftyp":
        if start[8:12] in _HEIF_BRANDS:
            return f"a HEIF image (HEIC), which needs conversion; {_EXPORT}"
        return f"a video or another ISO media file; {_EXPORT}"
    if start[128:132] == b"DICM":
        return f"a DICOM file; {_EXPORT}"
    if not start.strip(b"\x00"):
        return "a file that starts with nothing but zero bytes; it was not written or copied completely"
    return _describe_text(start)


def _describe_text(start: bytes) -> str | None:
    text = decode_text(start)
    if text is None:
        return None
    if is_web_page(text):
        return "a web page, probably saved in place of the image; download the image again"
    if "<svg" in text.lower():
        return f"an SVG drawing; {_EXPORT}"
    if is_markup(text):
        return "an XML or JSON text, probably an error message of the server; download the image again"
    return quote_text(text)
