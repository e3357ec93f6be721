"""A dataset together with regions that were found in its images beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hydet.data.datasets.record import Record
from hydet.data.errors import DataError
from hydet.data.proposals.proposal_file import ProposalFile

__all__ = ["WithProposals"]

_SHOWN = 5


class WithProposals:
    """Any dataset, its records filled with ``proposals``: what a detector without proposal generator learns from.

    Everything else, such as ``metadata``, ``aspect_ratios`` and ``to_coco()``, is that of the inner dataset.

    Args:
        dataset: with ``image_ids``, as those of :mod:`hydet.data` have.
        proposals: a file, or the path of one; see :meth:`ProposalFile.read`.
        missing: what to do if the file lacks an image: ``"raise"``, or ``"empty"`` for no proposals.

    Raises:
        DataError: if the file is broken, or lacks images and ``missing`` is ``"raise"``.
        TypeError: if the dataset has no ``image_ids``.
        ValueError: for another ``missing``.

    Source: Girshick 2015 (arXiv:1504.08083), where proposals come from elsewhere.
    """

    def __init__(
        self,
        *,
        dataset: Any,
        proposals: str | Path | ProposalFile,
        missing: Literal["raise", "empty"] = "raise",
    ) -> None:
        if missing not in ("raise", "empty"):
            raise ValueError(f'WithProposals: missing is "raise" or "empty", got {missing!r}')
        if not hasattr(dataset, "image_ids"):
            raise TypeError(
                f"WithProposals: {type(dataset).__name__} has no image_ids, one number for each image in order"
            )
        self.dataset = dataset
        self.proposals = proposals if isinstance(proposals, ProposalFile) else ProposalFile.read(proposals)
        if missing == "raise":
            ids = np.asarray(dataset.image_ids)
            lacking = ids[~self.proposals.has(ids)]
            if len(lacking):
                shown = ", ".join(str(i) for i in lacking[:_SHOWN])
                raise DataError(
                    f"{self.proposals.name}: lacks {len(lacking)} of {len(ids)} images: "
                    f'{shown}{", ..." if len(lacking) > _SHOWN else ""}; missing="empty" gives them no proposals'
                )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Record:
        """The inner dataset's record with its proposals; raises what the inner dataset raises."""
        record = self.dataset[index]
        return dataclasses.replace(record, proposals=self.proposals.of_image(record.image_id))

    def __getattr__(self, name: str) -> Any:
        # Private names stay with each object; and while one is unpickled, there is no inner dataset to ask yet.
        if name.startswith("_") or "dataset" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.dataset, name)
