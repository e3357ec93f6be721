"""File formats of precomputed proposals: ``.npz``, COCO results and the reference's pickles."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hydet.data.coco.json_values import are_finite, read_json, shorten, to_int
from hydet.data.errors import DataError, one_line
from hydet.data.proposals.array_pickle import read_array_pickle
from hydet.files.file_kinds import describe_content

__all__ = ["ProposalArrays", "concatenate_proposals", "read_proposal_arrays"]

_XYXY, _XYWH = 0, 1  # values of the reference's BoxMode
# An archive may unpack to this many times its size, and to this many bytes in any case; a bomb unpacks to more.
_MAX_RATIO, _MIN_LIMIT = 100, 2**26
_MAX_REASON = 200  # characters; errors quote what the file contains


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
        limit = max(_MAX_RATIO * path.stat().st_size, _MIN_LIMIT)
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in ProposalArrays._fields if name not in members]
            if missing:
                names = ", ".join(ProposalArrays._fields)
                raise DataError(f"{path}: must have the arrays {names}: it has no {missing[0]}")
            arrays = []
            for name in ProposalArrays._fields:
                if members[name].file_size > limit:
                    raise DataError(f"{path}: {name} would unpack to {members[name].file_size} bytes")
                with archive.open(members[name]) as member:
                    arrays.append(_parse_npy(member.read(members[name].file_size + 1)))
            return ProposalArrays(*arrays)
    except DataError:
        raise
    except Exception as error:  # a broken archive can raise almost any exception
        with path.open("rb") as file:
            start = file.read(1024)
        description = describe_content(start) if not start.startswith(b"PK") else None
        reason = (
            f"but {description}" if description else f"or is damaged ({one_line(str(error))[:_MAX_REASON]})"
        )
        raise DataError(f"{path}: is not an .npz file of arrays, {reason}") from error


def _parse_npy(content: bytes) -> np.ndarray:
    """Return the array of an ``.npy`` file.

    numpy's own function allocates what the header says before it reads the content.

    Raises:
        ValueError: if the content is not an array of numbers, or has another length than its header says.
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"an array has version {version} of the format")
    num_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or num_bytes != len(content) - stream.tell():
        raise ValueError(
            f"an array of shape {shape} and type {dtype} does not match its {len(content)} bytes"
        )
    array = np.frombuffer(content, dtype=dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_json(path: Path) -> ProposalArrays:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: COCO results must be a list, got {type(entries).__name__}")
    results = [_parse_coco_result(entry) for entry in entries]
    rows = [row for row in results if row is not None]
    if len(rows) < len(results):
        position = results.index(None)
        raise DataError(
            f"{path}: entry {position} must have the form "
            f'{{"image_id": 1, "bbox": [x, y, width, height], "score": 0.5}}, got {shorten(entries[position])}'
        )
    ids = np.array([image_id for image_id, _ in rows], dtype=np.int64)
    numbers = np.array([values for _, values in rows], dtype=np.float64).reshape(-1, 5)
    order = np.argsort(ids, kind="stable")
    image_ids, counts = np.unique(ids, return_counts=True)
    return ProposalArrays(
        image_ids=image_ids,
        offsets=np.cumsum([0, *counts]),
        boxes=_xywh_to_xyxy(numbers[:, :4])[order],
        objectness_logits=numbers[order, 4],
    )


def _parse_coco_result(entry: object) -> tuple[int, Sequence[float]] | None:
    """Return the image id, and the box and score of a COCO result; None if the entry is something else."""
    if not isinstance(entry, dict):
        return None
    image_id, box = to_int(entry.get("image_id")), entry.get("bbox")
    values = [*box, entry.get("score")] if isinstance(box, list) and len(box) == 4 else None
    return (image_id, values) if image_id is not None and values is not None and are_finite(values) else None


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
    if not isinstance(mode, int | float) or mode not in (_XYXY, _XYWH):
        raise DataError(f"{path}: bbox_mode must be {_XYXY} (xyxy) or {_XYWH} (xywh), got {shorten(mode)}")
    ids, boxes, logits = [], [], []
    for image_id, image_boxes, image_scores in zip(*columns):
        try:
            ids.append(_to_id(image_id))
            values = np.asarray(image_boxes, dtype=np.float64).reshape(-1, 4)
            logits.append(np.asarray(image_scores, dtype=np.float64).reshape(len(values)))
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path}: image {shorten(image_id)}: {one_line(str(error))}") from error
        boxes.append(values if mode == _XYXY else _xywh_to_xyxy(values))
    return concatenate_proposals(ids, boxes, logits)


def _to_id(value: object) -> int:
    image_id = to_int(value.item() if isinstance(value, np.generic) else value)
    if image_id is None:
        raise ValueError("the image id must be an integer of 64 bits")
    return image_id


def _xywh_to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
