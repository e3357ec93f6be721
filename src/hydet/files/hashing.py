"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["hash_file"]


def hash_file(path: Path) -> str:
    """Return the SHA-256 hash of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
