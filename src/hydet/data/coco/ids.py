"""Integers for the ids of a JSON file, whatever their type."""

from __future__ import annotations

from collections.abc import Iterable

from hydet.data.coco.json_values import to_int, unused_ids

__all__ = ["IdTable"]


class IdTable:
    """Integers of 64 bits for the ids of one list of a file.

    Tools write ids as integers, as text (``"7"``) or as floats (``7.0``); all of these are the integer 7. Other text, and
    integers beyond 64 bits, get unused integers in the order of the list.

    Args:
        values: all ids of the list; those that are not ids are skipped.

    Attributes:
        renumbered: the integer of each id that does not stand for one.
    """

    def __init__(self, values: Iterable[object]) -> None:
        integers: set[int] = set()
        labels: dict[str, None] = {}  # in order, without repetitions
        for value in values:
            number = to_int(value)
            if number is not None:
                integers.add(number)
            elif (label := _to_label(value)) is not None:
                labels[label] = None
        self.renumbered = dict(zip(labels, unused_ids(integers))) if labels else {}

    def find(self, value: object) -> int | None:
        """Return the integer of an id, or None if the value is not an id; integers need not be in the list."""
        number = to_int(value)
        if number is not None:
            return number
        label = _to_label(value)
        return None if label is None else self.renumbered.get(label)


def _to_label(value: object) -> str | None:
    """Return the text of an id that is not an integer of 64 bits, or None if the value cannot be an id."""
    if type(value) is int:
        return hex(value)
    return value if isinstance(value, str) and value else None
