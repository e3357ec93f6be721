"""Layers that predict for each class, and the order of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["ClassRows", "PredictsClasses"]


@dataclass(frozen=True)
class ClassRows:
    """Order of the output rows of a layer: ``(groups, num_classes + has_background, rows_per_class)``.

    Attributes:
        num_classes: number of classes, without background.
        groups: number of anchors per cell if each has rows for all classes.
        rows_per_class: 4 for the deltas of a box.
        has_background: the last class is background.
        has_things: the classes are those of objects; False for semantic classes.
    """

    num_classes: int
    groups: int = 1
    rows_per_class: int = 1
    has_background: bool = False
    has_things: bool = True

    def layout(self, num_classes: int) -> tuple[int, int, int]:
        """Return the shape of the rows for another number of classes."""
        return self.groups, num_classes + self.has_background, self.rows_per_class

    def count_classes(self, num_rows: int) -> int | None:
        """Return the number of classes, without background, of a layer with ``num_rows`` rows, or None if none fits."""
        count, rest = divmod(num_rows, self.groups * self.rows_per_class)
        return None if rest or count <= self.has_background else count - self.has_background


@runtime_checkable
class PredictsClasses(Protocol):
    """A module with layers that predict for each class."""

    @property
    def class_rows(self) -> Mapping[str, ClassRows]:
        """Order of the rows by name of the layer, a direct child of the module."""
        ...
