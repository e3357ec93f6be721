"""Read a checkpoint's ``metadata.json``, which may come from an untrusted source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydet.files import read_json

__all__ = ["FORMAT", "FORMAT_VERSION", "read_metadata_file"]

FORMAT = "hydet-checkpoint"
FORMAT_VERSION = 1


def read_metadata_file(path: str | Path) -> dict[str, Any]:
    """Return the content of ``metadata.json`` after a check of the type of each field that hydet reads.

    Raises:
        ValueError: if the file is damaged, belongs to something else, or was written by a newer version of hydet; the
            message names the file.
    """
    path = Path(path)
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"{path} does not belong to a hydet checkpoint")
    version = metadata.get("format_version")
    # Checked before the other fields, since a newer format may have changed their types.
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(f"{path} was written by a newer hydet (format {version})")
    for key, (is_valid, expected) in _FIELDS.items():
        if not is_valid(metadata.get(key)):
            raise ValueError(f"{path} is damaged: {key} must be {expected}, got {_short(metadata.get(key))}")
    return metadata


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    # Integers beyond the range of a float cannot be compared with times or printed as metrics.
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )


def _is_file_list(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and name == Path(name).name and "\0" not in name and _is_count(size)
        for name, size in value.items()
    )


def _is_hash_list(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
    )


def _is_metrics(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping) and all(number is None or _is_number(number) for number in value.values())
    )


def _is_dataset(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping) or not isinstance(value.get("thing_classes"), list):
        return False
    return all(isinstance(name, str) for name in value["thing_classes"])


_FIELDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "format_version": (_is_count, "a number"),
    "step": (_is_count, "a number of steps"),
    "files": (_is_file_list, "file names with sizes"),
    "sha256": (_is_hash_list, "file names with hashes"),
    "metrics": (_is_metrics, "names with numbers"),
    "dataset": (_is_dataset, "a mapping with thing_classes, a list of names"),
    "max_steps": (lambda value: value is None or _is_count(value), "a number of steps"),
    "saved_at": (lambda value: value is None or _is_number(value), "a time"),
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
