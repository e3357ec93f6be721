"""Warnings about images that a loader could not read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from hydet.data.datasets.dataset import DetectionDataset

__all__ = ["UnreadableImages"]


class UnreadableImages:
    """Counts images that could not be read, and reports each of them once.

    Args:
        dataset: receives each message in its report.
        action: how the loader handles such an image, one word for the report.
        consequence: how the loader handles such an image, a clause for the warning.
    """

    def __init__(self, dataset: DetectionDataset, *, action: str, consequence: str) -> None:
        self.dataset = dataset
        self.action = action
        self.consequence = consequence
        self.count = 0
        self._reported: set[str] = set()

    def add(self, errors: Sequence[str]) -> None:
        """Count errors; warn about each new one and add it to the dataset's report."""
        for message in errors:
            self.count += 1
            if message not in self._reported:
                self._reported.add(message)
                warnings.warn(f"{message}; {self.consequence}", stacklevel=3)
                self.dataset.report().add("unreadable_image", message, action=self.action)
