"""Integers for the ids of a JSON file, whatever their type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard

from hydet.data.coco.json_values import to_int, unused_ids
from hydet.data.datasets.file_ids import FileId

__all__ = ["IdTable"]


class IdTable:
    """Integers of 64 bits for the ids of one list of a file.

    Tools write ids as integers, as text (``"7"``) or as floats (``7.0``); all of these are the integer 7. Other text, and
    integers beyond 64 bits, get unused integers in the order of the list.

    Args:
        values: all ids of the list; those that are not ids are skipped.

    Attributes:
        renumbered: the integer of each id that does not stand for one.
        in_file: the id in the file of each integer that is not itself in the file, for files of results.
    """

    def __init__(self, values: Iterable[object]) -> None:
        integers: set[int] = set()
        texts: dict[int, FileId] = {}
        others: dict[FileId, None] = {}  # in order, without repetitions
        for value in values:
            number = to_int(value)
            if number is None:
                if _is_other_id(value):
                    others[value] = None
            elif number not in integers:
                integers.add(number)
                if isinstance(value, str):
                    texts[number] = value
        self.renumbered: dict[FileId, int] = dict(zip(others, unused_ids(integers))) if others else {}
        self.in_file: dict[int, FileId] = texts | {number: value for value, number in self.renumbered.items()}

    def find(self, value: object) -> int | None:
        """Return the integer of an id, or None if the value is not an id; integers need not be in the list."""
        number = to_int(value)
        if number is not None:
            return number
        return self.renumbered.get(value) if _is_other_id(value) else None


def _is_other_id(value: object) -> TypeGuard[FileId]:
    """Return True for text and integers that do not stand for an integer of 64 bits."""
    return type(value) is int or (isinstance(value, str) and value != "")
