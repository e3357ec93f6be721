"""Application of a data policy to the problems of one file."""

from __future__ import annotations

from pathlib import Path

from hydet.data.datasets.report import DataReport, Policy
from hydet.data.errors import DataError, one_line

__all__ = ["BrokenAnnotationError", "ProblemHandler"]

_MAX_MESSAGE = 600  # characters


class BrokenAnnotationError(Exception):
    """An annotation that has to be dropped; ``kind`` is that of the problem in the report."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class ProblemHandler:
    """Report the problems of one file, or raise, as the policy demands.

    Messages become one printable line: names in files may have line breaks or invalid characters.

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

    def add(self, kind: str, message: str, *, action: str = "dropped", names_image: bool = True) -> None:
        """Report a problem; see :meth:`note` for ``names_image``.

        Raises:
            DataError: under policy ``"raise"``.
        """
        if self.policy == "raise":
            raise DataError(f"{self.path}: {_cut(message)}")
        self.note(kind, message, action=action, names_image=names_image)

    def note(self, kind: str, message: str, *, action: str, names_image: bool = True) -> None:
        """Report a value in an unusual form that has only one meaning, such as the id ``"7"``; no policy raises.

        Args:
            kind: kind of the problem.
            message: the problem, with the file it is about.
            action: what was done about it.
            names_image: False to put the name of the file in front of the message, which names no image.
        """
        prefix = "" if names_image else f"{self.path.name}: "
        self.report.add(kind, prefix + _cut(one_line(message)), action=action)

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


def _cut(message: str) -> str:
    """Cut the middle out of a message with a very long name."""
    half = _MAX_MESSAGE // 2
    return message if len(message) <= _MAX_MESSAGE else f"{message[:half]}...{message[-half:]}"
