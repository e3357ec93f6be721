"""File formats of precomputed proposals: ``.npz``, COCO results and the reference's pickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hydet.data.errors import DataError
from hydet.data.proposals.array_pickle import read_array_pickle

__all__ = ["ProposalArrays", "concatenate_proposals", "read_proposal_arrays"]

_XYXY, _XYWH = 0, 1  # values of the reference's BoxMode


class ProposalArrays(NamedTuple):
    """The unchecked arrays of a :class:`hydet.data.ProposalFile`."""

    image_ids: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    objectness_logits: np.ndarray


def read_proposal_arrays(path: Path) -> ProposalArrays:
    """Read a file in the format of its suffix; see :meth:`hydet.data.ProposalFile.read`.

    Raises:
        DataError: if the file is missing, broken or has another format.
    """
    read = {".npz": _read_npz, ".json": _read_json, ".pkl": _read_pickle}.get(path.suffix)
    if read is None:
        raise DataError(f"{path}: a proposal file must end in .npz, .json (COCO results) or .pkl")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return read(path)


def concatenate_proposals(
    image_ids: Sequence[int], boxes: Sequence[np.ndarray], logits: Sequence[np.ndarray]
) -> ProposalArrays:
    """Concatenate the proposals of several images.

    Args:
        image_ids: N image ids.
        boxes: boxes of each image, ``(P_i, 4)``.
        logits: logits of each image, ``(P_i,)``.
    """
    return ProposalArrays(
        image_ids=np.array(image_ids, dtype=np.int64),
        offsets=np.cumsum([0, *(len(image_boxes) for image_boxes in boxes)]),
        boxes=np.concatenate([np.zeros((0, 4), dtype=np.float32), *boxes]),
        objectness_logits=np.concatenate([np.zeros(0, dtype=np.float32), *logits]),
    )


def _read_npz(path: Path) -> ProposalArrays:
    try:
        # np.load leaves a broken archive open if it opens the file itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return ProposalArrays(*(content[name] for name in ProposalArrays._fields))
    except KeyError as error:
        raise DataError(
            f"{path}: must have the arrays {', '.join(ProposalArrays._fields)}: {error.args[0]}"
        ) from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is not an .npz file of arrays ({error})") from error


def _read_json(path: Path) -> ProposalArrays:
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a JSON file ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: COCO results must be a list, got {type(entries).__name__}")
    for position, entry in enumerate(entries):
        if not _is_coco_result(entry):
            raise DataError(
                f"{path}: entry {position} must have the form "
                '{"image_id": 1, "bbox": [x, y, width, height], "score": 0.5}'
            )
    ids = np.array([entry["image_id"] for entry in entries], dtype=np.int64)
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    scores = np.array([entry["score"] for entry in entries], dtype=np.float64)
    order = np.argsort(ids, kind="stable")
    image_ids, counts = np.unique(ids, return_counts=True)
    return ProposalArrays(
        image_ids=image_ids,
        offsets=np.cumsum([0, *counts]),
        boxes=_xywh_to_xyxy(boxes)[order],
        objectness_logits=scores[order],
    )


def _is_coco_result(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int):
        return False
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return False
    return all(isinstance(value, int | float) for value in (*box, entry.get("score")))


def _read_pickle(path: Path) -> ProposalArrays:
    content = read_array_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: a file of proposals must be a dict, got {type(content).__name__}")
    columns = []
    for names in (("ids", "indexes"), ("boxes",), ("objectness_logits", "scores")):
        column = next((content[name] for name in names if name in content), None)
        if not isinstance(column, list | tuple | np.ndarray):
            raise DataError(f"{path}: has no list {' or '.join(map(repr, names))}")
        columns.append(column)
    if len({len(column) for column in columns}) != 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise DataError(f"{path}: ids, boxes and scores must have equal lengths, got {lengths}")
    mode = content.get("bbox_mode", _XYXY)
    if mode not in (_XYXY, _XYWH):
        raise DataError(f"{path}: bbox_mode must be {_XYXY} (xyxy) or {_XYWH} (xywh), got {mode!r}")
    ids, boxes, logits = [], [], []
    for image_id, image_boxes, image_scores in zip(*columns):
        try:
            ids.append(int(image_id))
            values = np.asarray(image_boxes, dtype=np.float64).reshape(-1, 4)
            logits.append(np.asarray(image_scores, dtype=np.float64).reshape(len(values)))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: image {image_id!r}: {error}") from error
        boxes.append(values if mode == _XYXY else _xywh_to_xyxy(values))
    return concatenate_proposals(ids, boxes, logits)


def _xywh_to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
