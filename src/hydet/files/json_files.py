"""Read JSON files that may be damaged or hostile."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["read_json"]

MAX_BYTES = 64 * 2**20


def read_json(path: Path) -> object:
    """Return the content of a JSON file of limited size.

    Raises:
        ValueError: if the file is missing, too large or no JSON; the message names it.
    """
    try:
        if not path.is_file():
            raise ValueError("no such file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return content
