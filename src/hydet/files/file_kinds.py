"""Descriptions of files that are something else than their names say."""

from __future__ import annotations

__all__ = ["describe_content"]

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
    try:
        text = start.decode("utf-8-sig", errors="strict" if len(start) < 4 else "ignore").strip()
    except UnicodeDecodeError:
        return None
    printable = sum(c.isprintable() or c.isspace() for c in text)
    if not text or printable < len(text) or len(text.encode()) < 0.9 * len(start.strip()):
        return None
    lowered = text.lower()
    if "<html" in lowered or lowered.startswith("<!doctype html"):
        return f"a web page, {_PAGE}"
    if lowered.startswith(("<?xml", "<error", "{")):
        return f"an XML or JSON text, {_PAGE}"
    line = " ".join(text.split())
    return f"a text file ({line[:40]!r}{'...' if len(line) > 40 else ''})"
