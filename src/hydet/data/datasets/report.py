"""What was wrong with the files of a dataset."""

from __future__ import annotations

import dataclasses
from typing import Literal

__all__ = ["POLICIES", "DataReport", "Policy", "Problem"]

Policy = Literal["drop", "clamp", "raise"]
POLICIES: tuple[Policy, ...] = ("drop", "clamp", "raise")

_EXAMPLES = 20  # kept of each kind


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that was wrong: its kind, a line that names file and annotation, and what was done about it."""

    kind: str
    message: str
    action: str


class DataReport:
    """Counts problems by kind and keeps the first few of each; ``str`` gives a summary, empty if there are none.

    Args:
        source: the file that this is about.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.counts: dict[tuple[str, str], int] = {}
        self.problems: list[Problem] = []

    def add(self, kind: str, message: str, *, action: str) -> None:
        """Note a problem.

        Args:
            kind: such as ``"box_outside"``.
            message: one line with file and annotation id.
            action: what was done: ``"dropped"``, ``"clamped"``, ...
        """
        key = (kind, action)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] <= _EXAMPLES:
            self.problems.append(Problem(kind, message, action))

    def count(self, kind: str | None = None) -> int:
        """How many problems there were, of one kind or in all."""
        return sum(n for (name, _), n in self.counts.items() if kind in (None, name))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        if not self.counts:
            return ""
        lines = [f"{self.source}: {self.count()} problem{'s' if self.count() > 1 else ''}"]
        for (kind, action), number in sorted(self.counts.items(), key=lambda item: -item[1]):
            first = next(p for p in self.problems if p.kind == kind and p.action == action)
            such = "" if number == 1 else "such as "
            lines.append(f"  {number} x {kind.replace('_', ' ')}, {action}: {such}{first.message}")
        return "\n".join(lines)
