"""Application of a data policy to the problems of one file."""

from __future__ import annotations

from pathlib import Path

from hydet.data.datasets.report import DataReport, Policy
from hydet.data.errors import DataError

__all__ = ["BrokenAnnotationError", "ProblemHandler"]


class BrokenAnnotationError(Exception):
    """An annotation that has to be dropped; ``kind`` is that of the problem in the report."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class ProblemHandler:
    """Report the problems of one file, or raise, as the policy demands.

    Args:
        path: the file, for messages.
        policy: ``"drop"`` leaves out broken entries, ``"clamp"`` repairs them if possible, ``"raise"`` does neither.
        report: receives the problems.
    """

    def __init__(self, path: Path, *, policy: Policy, report: DataReport) -> None:
        self.path = path
        self.policy = policy
        self.report = report

    @property
    def repairs(self) -> bool:
        """True if the policy allows repairs."""
        return self.policy == "clamp"

    def add(self, kind: str, message: str, *, action: str = "dropped") -> None:
        """Report a problem.

        Raises:
            DataError: under policy ``"raise"``.
        """
        if self.policy == "raise":
            raise DataError(f"{self.path}: {message}")
        self.report.add(kind, message, action=action)

    def repair(self, kind: str, annotation: str, reason: str, *, action: str) -> None:
        """Report a repair of an annotation; return only if the policy allows it.

        Args:
            kind: kind of the problem.
            annotation: file name and annotation id, for the message.
            reason: what is wrong with the annotation.
            action: the repair.

        Raises:
            BrokenAnnotationError: if the policy does not allow repairs.
        """
        if not self.repairs:
            raise BrokenAnnotationError(kind, reason)
        self.add(kind, f"{annotation}: {reason}", action=action)
