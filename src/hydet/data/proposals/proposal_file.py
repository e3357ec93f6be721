"""Files of precomputed proposals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from hydet.data.datasets.record import Proposals
from hydet.data.errors import DataError
from hydet.data.proposals.formats import ProposalArrays, concatenate_proposals, read_proposal_arrays
from hydet.files import atomic_file

__all__ = ["ProposalFile", "write_proposals"]


class ProposalFile:
    """The proposals of many images, in four arrays that worker processes share.

    Args:
        image_ids: ``(N,)`` int64 unique image ids, in any order.
        offsets: ``(N + 1,)`` int64; image ``i`` has the proposals ``offsets[i] ... offsets[i + 1]``.
        boxes: ``(P, 4)`` float32 xyxy in pixels of the original images.
        objectness_logits: ``(P,)`` float32; only their order within an image matters.
        name: name of the file, for messages.

    Raises:
        DataError: if the shapes do not match, an image id repeats, or a number is not finite.
    """

    def __init__(
        self,
        *,
        image_ids: np.ndarray,
        offsets: np.ndarray,
        boxes: np.ndarray,
        objectness_logits: np.ndarray,
        name: str = "proposals",
    ) -> None:
        arrays = ProposalArrays(image_ids, offsets, boxes, objectness_logits)
        _check_dtypes(arrays, name)
        with np.errstate(over="ignore"):  # too large numbers become infinite, which _check_finite reports
            arrays = ProposalArrays(
                image_ids=image_ids.astype(np.int64),
                offsets=offsets.astype(np.int64),
                boxes=boxes.astype(np.float32),
                objectness_logits=objectness_logits.astype(np.float32),
            )
        _check_shapes(arrays, name)
        _check_finite(arrays, name)
        self.image_ids, self.offsets, self.boxes, self.objectness_logits = arrays
        self.name = name
        self._order = np.argsort(self.image_ids, kind="stable")
        self._sorted_ids = self.image_ids[self._order]
        repeated = np.flatnonzero(np.diff(self._sorted_ids) == 0)
        if len(repeated):
            raise DataError(f"{name}: image {self._sorted_ids[repeated[0]]} appears more than once")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """Return ``(M,)`` bool, True for the image ids that have an entry, even if it has no proposals."""
        return np.isin(image_ids, self._sorted_ids)

    def of_image(self, image_id: int) -> Proposals:
        """Return a copy of the proposals of an image, in the file's order; empty if it has no entry."""
        position = int(np.searchsorted(self._sorted_ids, image_id))
        rows = slice(0, 0)
        if position < len(self) and self._sorted_ids[position] == image_id:
            index = int(self._order[position])
            rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Proposals(
            boxes=torch.from_numpy(self.boxes[rows].copy()),
            objectness_logits=torch.from_numpy(self.objectness_logits[rows].copy()),
        )

    @classmethod
    def read(cls, path: str | Path) -> ProposalFile:
        """Read a file; its suffix determines the format.

        - ``.npz``: output of :func:`write_proposals`, with arrays named like the constructor's arguments.
        - ``.json``: COCO results, a list of ``{"image_id", "bbox": [x, y, width, height], "score"}``.
        - ``.pkl``: pickles of the reference, a dict with the lists ``ids`` (or ``indexes``), ``boxes`` and
          ``objectness_logits`` (or ``scores``), and ``bbox_mode``. No code in the pickle is run.

        Scores are not converted: probabilities stay probabilities, because only their order matters.

        Raises:
            DataError: if the file is missing, broken or has another format.
        """
        return cls(**read_proposal_arrays(Path(path))._asdict(), name=str(path))


def _check_dtypes(arrays: ProposalArrays, name: str) -> None:
    for key, array in arrays._asdict().items():
        is_index = key in ("image_ids", "offsets")
        if array.dtype.kind not in ("iu" if is_index else "iuf"):  # signed, unsigned, float
            expected = "integers" if is_index else "numbers"
            raise DataError(f"{name}: {key} must be {expected}, got an array of {array.dtype}")
        if is_index and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{name}: {key} has {int(array.max())}, which is more than 64 bits hold")


def _check_shapes(arrays: ProposalArrays, name: str) -> None:
    ids, offsets, boxes, logits = arrays
    if ids.ndim != 1 or boxes.ndim != 2 or boxes.shape[1:] != (4,) or logits.shape != boxes.shape[:1]:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in zip(ProposalArrays._fields, arrays))
        raise DataError(
            f"{name}: image_ids must have shape (N,), boxes (P, 4) and objectness_logits (P,), got {shapes}"
        )
    are_complete = offsets.shape == (len(ids) + 1,) and offsets[0] == 0 and offsets[-1] == len(boxes)
    if not are_complete or (np.diff(offsets) < 0).any():
        raise DataError(
            f"{name}: offsets must be {len(ids) + 1} ascending numbers from 0 to {len(boxes)}, "
            "one more than there are images"
        )


def _check_finite(arrays: ProposalArrays, name: str) -> None:
    ids, offsets, boxes, logits = arrays
    is_broken = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(logits))  # (P,)
    if is_broken.any():
        image_id = ids[np.searchsorted(offsets, int(is_broken.argmax()), side="right") - 1]
        raise DataError(f"{name}: image {image_id}: a proposal is not finite")


def write_proposals(path: str | Path, proposals: Iterable[tuple[int, Proposals]]) -> Path:
    """Write an ``.npz`` file that :meth:`ProposalFile.read` reads. The file is replaced atomically.

    Args:
        path: path with the suffix ``.npz``; its folder is created if necessary.
        proposals: id and proposals of each image, in pixels of the original image.

    Returns:
        The path.

    Raises:
        ValueError: if the path has another suffix.
        DataError: if an image id repeats, or a number is not finite.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"write_proposals: the file name must end in .npz, got {path.name!r}")
    image_ids, boxes, logits = [], [], []
    for image_id, image_proposals in proposals:
        image_ids.append(int(image_id))
        boxes.append(image_proposals.boxes.detach().float().cpu().numpy())
        logits.append(image_proposals.objectness_logits.detach().float().cpu().numpy())
    file = ProposalFile(**concatenate_proposals(image_ids, boxes, logits)._asdict(), name=str(path))
    with atomic_file(path) as unfinished, unfinished.open("wb") as stream:
        np.savez(
            stream,
            image_ids=file.image_ids,
            offsets=file.offsets,
            boxes=file.boxes,
            objectness_logits=file.objectness_logits,
        )
    return path
