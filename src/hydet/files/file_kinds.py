"""Descriptions of files that are something else than their names say."""

from __future__ import annotations

__all__ = ["decode_text", "describe_content", "is_markup", "is_web_page", "quote_text"]

# Start of the content -> what the file is, and the remedy.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; `git lfs pull` downloads it"),
    (b"version https://hawser", "a Git LFS pointer, not the file itself; `git lfs pull` downloads it"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself; `git annex get` downloads it"),
    (b"\x00\x05\x16\x07", "a companion file of macOS; remove it"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x7fELF", "a program"),
)
_PAGE = "probably saved in place of the file; download the file again"


def describe_content(start: bytes) -> str | None:
    """Return what a file is whose content cannot be read, such as "a Git LFS pointer", or None.

    Args:
        start: the first bytes of the file, about a thousand.
    """
    if not start:
        return "an empty file"
    for signature, description in _SIGNATURES:
        if start.startswith(signature):
            return description
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if len(start) > 9 and start[8:10] in (b'{"', b"{}") and int.from_bytes(start[:8], "little") < 2**32:
        return "a safetensors file"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    return _describe_text(start)


def _describe_text(start: bytes) -> str | None:
    text = decode_text(start)
    if text is None:
        return None
    if is_web_page(text):
        return f"a web page, {_PAGE}"
    if is_markup(text):
        return f"an XML or JSON text, {_PAGE}"
    return quote_text(text)


def decode_text(start: bytes) -> str | None:
    """Return the first bytes of a file as text without blanks around it, or None if they are not printable text."""
    try:
        text = start.decode("utf-8-sig", errors="strict" if len(start) < 4 else "ignore").strip()
    except UnicodeDecodeError:
        return None
    printable = sum(c.isprintable() or c.isspace() for c in text)
    if not text or printable < len(text) or len(text.encode()) < 0.9 * len(start.strip()):
        return None
    return text


def is_web_page(text: str) -> bool:
    """Return True if text from ``decode_text`` is HTML."""
    lowered = text.lower()
    return "<html" in lowered or lowered.startswith("<!doctype html")


def is_markup(text: str) -> bool:
    """Return True if text from ``decode_text`` starts as XML or JSON does."""
    return text.lower().startswith(("<?xml", "<error", "{"))


def quote_text(text: str) -> str:
    """Return the description of a text file that quotes its start."""
    line = " ".join(text.split())
    return f"a text file ({line[:40]!r}{'...' if len(line) > 40 else ''})"
