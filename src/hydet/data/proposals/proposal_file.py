"""Regions of many images where objects may be, in one file."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hydet.data.datasets.record import Proposals
from hydet.data.errors import DataError
from hydet.data.proposals.array_pickle import read_array_pickle

__all__ = ["ProposalFile", "write_proposals"]

_XYXY, _XYWH = 0, 1  # the reference's numbers of box layouts


class ProposalFile:
    """The proposals of many images in four arrays, which worker processes share.

    Args:
        image_ids: ``(N,)`` int64, each once, in any order.
        offsets: ``(N + 1,)`` int64: image ``i`` has the proposals ``offsets[i] ... offsets[i + 1]``.
        boxes: ``(P, 4)`` float32 xyxy in pixels of the original images.
        objectness_logits: ``(P,)`` float32; only their order within an image matters.
        name: of the file, for messages.

    Raises:
        DataError: if the arrays do not fit together, an image comes twice, or a number is not finite.
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
        wanted = {
            "image_ids": (image_ids, "iu", np.int64),
            "offsets": (offsets, "iu", np.int64),
            "boxes": (boxes, "iuf", np.float32),
            "objectness_logits": (objectness_logits, "iuf", np.float32),
        }
        for key, (array, kinds, _) in wanted.items():
            if array.dtype.kind not in kinds:
                raise DataError(f"{name}: {key} must be numbers, got an array of {array.dtype}")
        ids, offsets, boxes, logits = (array.astype(dtype) for array, _, dtype in wanted.values())
        if ids.ndim != 1 or boxes.ndim != 2 or boxes.shape[1:] != (4,) or logits.shape != boxes.shape[:1]:
            shapes = ", ".join(f"{key} {array.shape}" for key, (array, _, _) in wanted.items())
            raise DataError(f"{name}: N images with P boxes (P, 4) and P logits, got {shapes}")
        ends_fit = offsets.shape == (len(ids) + 1,) and offsets[0] == 0 and offsets[-1] == len(boxes)
        if not ends_fit or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{name}: offsets must rise from 0 to {len(boxes)}, one more than images ({len(ids)})"
            )
        broken = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(logits))
        if broken.any():
            image = ids[np.searchsorted(offsets, int(broken.argmax()), side="right") - 1]
            raise DataError(f"{name}: image {image}: a proposal is not finite")
        self._order = np.argsort(ids, kind="stable")
        self._sorted_ids = ids[self._order]
        twice = np.flatnonzero(np.diff(self._sorted_ids) == 0)
        if len(twice):
            raise DataError(f"{name}: image {self._sorted_ids[twice[0]]} comes more than once")
        self.image_ids, self.offsets, self.boxes, self.objectness_logits = ids, offsets, boxes, logits
        self.name = name

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """``(M,)`` bool: which of ``(M,)`` images are in the file, be it without any proposal."""
        return np.isin(image_ids, self._sorted_ids)

    def of_image(self, image_id: int) -> Proposals:
        """A copy of the proposals of one image, in the file's order; none if the file lacks it."""
        place = int(np.searchsorted(self._sorted_ids, image_id))
        own = slice(0, 0)
        if place < len(self) and self._sorted_ids[place] == image_id:
            row = int(self._order[place])
            own = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return Proposals(
            boxes=torch.from_numpy(self.boxes[own].copy()),
            objectness_logits=torch.from_numpy(self.objectness_logits[own].copy()),
        )

    @classmethod
    def read(cls, path: str | Path) -> ProposalFile:
        """Read a file, by the end of its name.

        - ``.npz``: what :func:`write_proposals` writes, the four arrays under the names of the constructor.
        - ``.json``: COCO's results, a list of ``{"image_id", "bbox": [x, y, width, height], "score"}``.
        - ``.pkl``: the reference's pickles, a dict of lists ``ids`` (or ``indexes``), ``boxes`` and
          ``objectness_logits`` (or ``scores``), and ``bbox_mode``; read without running anything in it.

        Scores are kept as they are, logits or not.

        Raises:
            DataError: if the file is missing, broken or of another kind.
        """
        path = Path(path)
        reader = {".npz": _from_npz, ".json": _from_json, ".pkl": _from_pickle}.get(path.suffix)
        if reader is None:
            raise DataError(f"{path}: proposals are read from .npz, .json (COCO results) and .pkl files")
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        return cls(**reader(path), name=str(path))


def write_proposals(path: str | Path, proposals: Iterable[tuple[int, Proposals]]) -> Path:
    """Write an ``.npz`` file that :meth:`ProposalFile.read` reads, at once, so that there is never half of one.

    Args:
        path: ending in ``.npz``; its folder is made if it is not there.
        proposals: for each image its id, and what was found in pixels of the original image.

    Returns:
        The path.

    Raises:
        ValueError: for another ending.
        DataError: if an image comes twice, or a number is not finite.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"write_proposals: the name must end in .npz, got {path.name!r}")
    ids, found = [], []
    for image_id, one in proposals:
        ids.append(int(image_id))
        found.append([t.detach().float().cpu().numpy() for t in (one.boxes, one.objectness_logits)])
    file = ProposalFile(**_flat(ids, [b for b, _ in found], [s for _, s in found]), name=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as stream:
        np.savez(
            stream,
            image_ids=file.image_ids,
            offsets=file.offsets,
            boxes=file.boxes,
            objectness_logits=file.objectness_logits,
        )
    os.replace(unfinished, path)
    return path


def _flat(
    ids: Sequence[int], boxes: Sequence[np.ndarray], logits: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """The four arrays from those of single images."""
    return {
        "image_ids": np.array(ids, dtype=np.int64),
        "offsets": np.cumsum([0, *(len(b) for b in boxes)]),
        "boxes": np.concatenate([np.zeros((0, 4), dtype=np.float32), *boxes]),
        "objectness_logits": np.concatenate([np.zeros(0, dtype=np.float32), *logits]),
    }


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    names = ("image_ids", "offsets", "boxes", "objectness_logits")
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except KeyError as error:
        raise DataError(f"{path}: lacks one of the arrays {', '.join(names)}") from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an .npz file of arrays ({error})") from error


def _from_json(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: COCO's results are a list, got {type(entries).__name__}")
    for number, entry in enumerate(entries):
        if not _is_result(entry):
            raise DataError(
                f"{path}: entry {number} is not of the form "
                '{"image_id": 1, "bbox": [x, y, width, height], "score": 0.5}'
            )
    ids = np.array([entry["image_id"] for entry in entries], dtype=np.int64)
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    scores = np.array([entry["score"] for entry in entries], dtype=np.float64)
    order = np.argsort(ids, kind="stable")
    images, counts = np.unique(ids, return_counts=True)
    return {
        "image_ids": images,
        "offsets": np.cumsum([0, *counts]),
        "boxes": _to_xyxy(boxes)[order],
        "objectness_logits": scores[order],
    }


def _is_result(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int):
        return False
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return False
    return all(isinstance(value, int | float) for value in (*box, entry.get("score")))


def _from_pickle(path: Path) -> dict[str, np.ndarray]:
    content = read_array_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: a file of proposals is a dict, got {type(content).__name__}")
    columns = []
    for names in (("ids", "indexes"), ("boxes",), ("objectness_logits", "scores")):
        column = next((content[name] for name in names if name in content), None)
        if not isinstance(column, list | tuple | np.ndarray):
            raise DataError(f"{path}: has no list {' or '.join(map(repr, names))}")
        columns.append(column)
    if len({len(column) for column in columns}) != 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise DataError(f"{path}: ids, boxes and scores must be as many, got {lengths}")
    mode = content.get("bbox_mode", _XYXY)
    if mode not in (_XYXY, _XYWH):
        raise DataError(f"{path}: bbox_mode must be {_XYXY} (xyxy) or {_XYWH} (xywh), got {mode!r}")
    ids, boxes, logits = [], [], []
    for image_id, one, scores in zip(*columns):
        try:
            ids.append(int(image_id))
            own = np.asarray(one, dtype=np.float64).reshape(-1, 4)
            logits.append(np.asarray(scores, dtype=np.float64).reshape(len(own)))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: image {image_id!r}: {error}") from error
        boxes.append(own if mode == _XYXY else _to_xyxy(own))
    return _flat(ids, boxes, logits)


def _to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
