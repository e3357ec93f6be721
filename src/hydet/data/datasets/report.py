"""Problems found in the files of a dataset, and the policies for handling them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

__all__ = ["POLICIES", "DataReport", "Policy", "Problem"]

Policy = Literal["drop", "clamp", "raise"]
POLICIES: tuple[Policy, ...] = ("drop", "clamp", "raise")

_MAX_EXAMPLES = 20  # problems listed for each kind; all of them are counted


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem in the files of a dataset.

    Args:
        kind: short identifier, such as ``"box_outside"``.
        message: one line with the file and the annotation id.
        action: how the dataset handled it, such as ``"dropped"`` or ``"clamped"``.
    """

    kind: str
    message: str
    action: str


class DataReport:
    """Counts of problems by kind and action, with the first examples of each.

    Worker processes have copies of the report. In a worker, call :meth:`start_recording` once and
    :meth:`take_recorded` after each batch, and pass the result to :meth:`merge` of the report in the main process.

    ``str(report)`` is a summary of several lines. A report without problems is false, and its summary empty.

    Args:
        source: file or dataset that the report is about.

    Attributes:
        counts: number of problems by (kind, action).
        problems: the first problems of each kind and action.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.counts: dict[tuple[str, str], int] = {}
        self.problems: list[Problem] = []
        self._recorded: list[Problem] | None = None
        self._merged: set[Problem] = set()

    def add(self, kind: str, message: str, *, action: str) -> None:
        """Count a problem; see :class:`Problem` for the arguments."""
        if self._recorded is not None:
            self._recorded.append(Problem(kind, message, action))
        key = (kind, action)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] <= _MAX_EXAMPLES:
            self.problems.append(Problem(kind, message, action))

    def remove(self, kind: str) -> None:
        """Remove the problems of a kind, because they have been handled in another way."""
        self.counts = {key: number for key, number in self.counts.items() if key[0] != kind}
        self.problems = [problem for problem in self.problems if problem.kind != kind]

    def start_recording(self) -> None:
        """Record the problems from now on, for :meth:`take_recorded`."""
        if self._recorded is None:
            self._recorded = []

    def take_recorded(self) -> list[Problem]:
        """Return the problems since the last call, or since :meth:`start_recording`."""
        recorded = self._recorded or []
        if recorded:
            self._recorded = []
        return recorded

    def merge(self, problems: Iterable[Problem]) -> None:
        """Add problems that workers recorded, each once: several workers may have read the same image."""
        for problem in problems:
            if problem not in self._merged:
                self._merged.add(problem)
                self.add(problem.kind, problem.message, action=problem.action)

    def added_since(self, counts: Mapping[tuple[str, str], int]) -> DataReport:
        """Return a report of the problems that were added since ``counts`` was copied from :attr:`counts`."""
        added = DataReport(self.source)
        added.counts = {k: n - counts.get(k, 0) for k, n in self.counts.items() if n > counts.get(k, 0)}
        # The first problems of a kind were known before, so that an added one is the example if it was kept.
        for key in added.counts:
            examples = [problem for problem in self.problems if (problem.kind, problem.action) == key]
            added.problems += examples[counts.get(key, 0) :] or examples[-1:]
        return added

    def count(self, kind: str | None = None) -> int:
        """Return the number of problems of a kind; None counts all kinds."""
        return sum(n for (counted_kind, _), n in self.counts.items() if kind in (None, counted_kind))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        if not self.counts:
            return ""
        total = self.count()
        lines = [f"{self.source}: {total} problem{'s' if total > 1 else ''}", *self.summary()]
        return "\n  ".join(lines)

    def summary(self) -> list[str]:
        """Return one line per kind and action, the most frequent first: number, kind, action and an example."""
        lines = []
        for (kind, action), number in sorted(self.counts.items(), key=lambda item: -item[1]):
            example = next(p.message for p in self.problems if p.kind == kind and p.action == action)
            prefix = "" if number == 1 else "such as "
            lines.append(f"{number} x {kind.replace('_', ' ')}, {action}: {prefix}{example}")
        return lines
