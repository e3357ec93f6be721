"""Annotations with the same id: copies of one annotation, or different ones with an id that a tool gave twice."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["RepeatedIds"]


class RepeatedIds:
    """The annotations of a file by id.

    Some tools number the annotations of every image from 1, and files that were joined keep the numbers of both. Such
    annotations differ. An annotation with the id and the content of another one is a copy.
    """

    def __init__(self) -> None:
        self._first: dict[int, Mapping[str, object]] = {}
        # Hashes of the annotations with an id that repeats: an id that all annotations share would otherwise cost a
        # comparison with each of them.
        self._hashes: dict[int, set[int]] = {}

    def __contains__(self, annotation_id: int) -> bool:
        return annotation_id in self._first

    def add(self, annotation_id: int, entry: Mapping[str, object]) -> None:
        """Add an annotation; ``annotation_id`` is the one in use, which may differ from that of the file."""
        self._first[annotation_id] = entry

    def is_copy(self, annotation_id: int, entry: Mapping[str, object]) -> bool:
        """Return True if an annotation repeats another one with the same id; remember it otherwise."""
        if annotation_id not in self._hashes:
            self._hashes[annotation_id] = {_hash(self._first[annotation_id])}
        known, number = self._hashes[annotation_id], _hash(entry)
        if number in known:
            return True
        known.add(number)
        return False


def _hash(entry: Mapping[str, object]) -> int:
    try:
        return hash(repr(entry))
    except (RecursionError, ValueError):  # values nested too deeply, or numbers of thousands of digits
        return id(entry)
