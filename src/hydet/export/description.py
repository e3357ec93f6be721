"""``metadata.json``: everything that a program needs to know about an exported model beside the graph."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hydet.data import Metadata
from hydet.files import read_json

__all__ = [
    "FORMATS",
    "METADATA_FILE",
    "OUTPUTS",
    "Description",
    "ExportFormat",
    "ExportedFile",
    "Precision",
    "read_description",
]

ExportFormat = Literal["torch_export", "onnx", "aoti"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
Precision = Literal["fp32", "bf16", "fp16"]

METADATA_FILE = "metadata.json"
KIND, KIND_VERSION = "hydet-export", 1

# Meanings of the outputs, in their order. B images, K detections per image at most, M mask side, P keypoints,
# S heatmap side, L semantic labels.
OUTPUTS: Mapping[str, str] = {
    "boxes": "(B, K, 4) x1, y1, x2, y2 in pixels of the input image, clipped to it; or (B, K, 5) center x, center y, "
    "width, height and degrees counter-clockwise; zeros behind the last detection",
    "scores": "(B, K) by descending score; objectness logits of proposals",
    "classes": "(B, K) int64 index into dataset.thing_classes",
    "counts": "(B,) int64 number of detections per image; entries behind it are padding",
    "masks": "(B, K, M, M) probabilities, relative to the box",
    "keypoint_heatmaps": "(B, K, P, S, S) logits, relative to the box; the keypoint is the highest pixel after bicubic "
    "resizing to the box",
    "semantic_logits": "(B, L, H, W) of the padded batch; the label of a pixel is the index of the highest value",
}


@dataclass(frozen=True)
class ExportedFile:
    """One graph of an export.

    Attributes:
        name: name of the file, beside ``metadata.json``.
        size: (height, width) of the images that it takes; None for any size.
        sha256: hash of the file.
    """

    name: str
    size: tuple[int, int] | None
    sha256: str


@dataclass(frozen=True)
class Description:
    """Content of ``metadata.json``.

    Attributes:
        format: ``"onnx"``, ``"torch_export"`` or ``"aoti"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``, of the backbone and the heads.
        architecture: class of the model.
        tasks: see ``MetaArchitecture.tasks``.
        files: one per size.
        outputs: names of the outputs in their order, with their meanings.
        dataset: see ``hydet.data.Metadata``.
        resize: how images are resized before: ``{"name": "shortest_edge", "short": 800, "max_size": 1333}``,
            ``{"name": "fixed", "size": [800, 1216]}``, or None for images as they are. With Pillow's bilinear filter.
        thresholds: those that the graph contains, and those of the postprocessing.
        max_size: longest side of an image that the graph takes; None for any.
        device: type of device that the graph runs on; None for any.
        needs_hydet: ops of hydet that the graph calls; a process has to import hydet before it runs the graph.
        weights_sha256: hash of the state dict.
        versions: of hydet, and of the libraries that wrote the file.
        check: largest differences from the model, measured on images when the file was written.
    """

    format: ExportFormat
    precision: Precision
    architecture: str
    tasks: tuple[str, ...]
    files: tuple[ExportedFile, ...]
    outputs: Mapping[str, str]
    dataset: Metadata
    resize: Mapping[str, Any] | None
    thresholds: Mapping[str, Any]
    max_size: int | None
    device: str | None
    needs_hydet: tuple[str, ...]
    weights_sha256: str
    versions: Mapping[str, str]
    check: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the content of the file."""
        values = dataclasses.asdict(self) | {"dataset": self.dataset.to_dict()}
        head = {"kind": KIND, "kind_version": KIND_VERSION}
        return json.dumps(head | values, indent=2) + "\n"


def read_description(path: Path) -> Description:
    """Read ``metadata.json``.

    Raises:
        ValueError: if the file is damaged, belongs to something else, or was written by a newer version of hydet; the
            message names it.
    """
    values = read_json(path)
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise ValueError(f"{path} does not belong to an exported model")
    version = values.get("kind_version")
    if not isinstance(version, int) or version > KIND_VERSION:
        raise ValueError(f"{path} was written by a newer hydet (format {version})")
    try:
        return _from_json(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _from_json(values: Mapping[str, Any]) -> Description:
    if values["format"] not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {values['format']!r}")
    files = []
    for file in values["files"]:
        name = file["name"]
        if not isinstance(name, str) or name != Path(name).name:
            raise ValueError(f"{name!r} is not the name of a file in the same folder")
        size = file["size"]
        files.append(
            ExportedFile(name, None if size is None else (int(size[0]), int(size[1])), str(file["sha256"]))
        )
    if not files:
        raise ValueError("files is empty")
    fields = {field.name: values[field.name] for field in dataclasses.fields(Description)}
    return Description(
        **fields
        | {
            "files": tuple(files),
            "tasks": tuple(values["tasks"]),
            "needs_hydet": tuple(values["needs_hydet"]),
            "dataset": Metadata.from_dict(values["dataset"]),
        }
    )
