"""A dataset combined with precomputed proposals."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from hydet.data.datasets.coco_format import CocoJson
from hydet.data.datasets.dataset import BaseDataset, RecordSource, as_detection_dataset
from hydet.data.datasets.labels import Label
from hydet.data.datasets.record import Record
from hydet.data.datasets.report import DataReport
from hydet.data.errors import DataError
from hydet.data.proposals.proposal_file import ProposalFile

__all__ = ["WithProposals"]

_MAX_LISTED_IDS = 5


class WithProposals(BaseDataset):
    """Adds precomputed ``proposals`` to the records of a dataset, for detectors without a proposal generator.

    All other members, such as ``metadata``, ``aspect_ratios`` and ``to_coco()``, are those of the inner dataset.

    Args:
        dataset: the inner dataset.
        proposals: a proposal file or its path; see :meth:`ProposalFile.read`.
        missing: treatment of images that the file does not contain: ``"raise"``, or ``"empty"`` for no proposals.

    Raises:
        DataError: if the file is broken, or does not contain all images and ``missing`` is ``"raise"``.
        ValueError: if ``missing`` has another value.

    Source: Girshick 2015 (arXiv:1504.08083), which trains on selective-search proposals.
    """

    def __init__(
        self,
        *,
        dataset: RecordSource,
        proposals: str | Path | ProposalFile,
        missing: Literal["raise", "empty"] = "raise",
    ) -> None:
        if missing not in ("raise", "empty"):
            raise ValueError(f'WithProposals: missing must be "raise" or "empty", got {missing!r}')
        self.dataset = as_detection_dataset(dataset)
        self.metadata = self.dataset.metadata
        self.policy = self.dataset.policy
        self.keypoint_offset = self.dataset.keypoint_offset
        self.has_proposals = True
        self.labels = self.dataset.labels
        self.file_ids = self.dataset.file_ids
        self.proposals = proposals if isinstance(proposals, ProposalFile) else ProposalFile.read(proposals)
        if missing == "raise":
            self._check_all_images_have_proposals()

    def _check_all_images_have_proposals(self) -> None:
        image_ids = self.image_ids
        missing_ids = image_ids[~self.proposals.has(image_ids)]
        if len(missing_ids):
            listed = ", ".join(str(image_id) for image_id in missing_ids[:_MAX_LISTED_IDS])
            more = ", ..." if len(missing_ids) > _MAX_LISTED_IDS else ""
            raise DataError(
                f"{self.proposals.name}: has no entry for {len(missing_ids)} of {len(image_ids)} images: "
                f'{listed}{more}; missing="empty" uses no proposals for them'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Record:
        """Return a record of the inner dataset with its proposals. Errors are those of the inner dataset."""
        record = self.dataset[index]
        return dataclasses.replace(record, proposals=self.proposals.of_image(record.image_id))

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64 image ids of the inner dataset."""
        return self.dataset.image_ids

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64 width divided by height, from the inner dataset."""
        return self.dataset.aspect_ratios

    def require(self, labels: Collection[Label]) -> None:
        """Prepare the inner dataset for a model that needs some kinds of labels."""
        self.dataset.require(labels)

    def classes_of_images(self) -> list[list[int]]:
        """Return the distinct classes in each image of the inner dataset, with crowds."""
        return self.dataset.classes_of_images()

    def report(self) -> DataReport:
        """Return the report of the inner dataset."""
        return self.dataset.report()

    def to_coco(self) -> CocoJson:
        """Return the ground truth of the inner dataset as COCO's JSON."""
        return self.dataset.to_coco()
