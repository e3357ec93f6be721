"""``export_model``: write a model as a file of another runtime, and check that the file computes the same."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydet.data import Metadata
from hydet.files import hash_file, naming_write_errors, unfinished_path, write_atomically
from hydet.modeling import MetaArchitecture, PanopticFPN
from hydet.modeling.meta_arch import DenseDetector, GeneralizedRCNN
from hydet.modeling.optimization.norm_folding import fold_norms
from hydet.modeling.optimization.reduced_precision import to_reduced_precision
from hydet.structures import ModelInput, resize_with_pillow

from .agreement import BOUNDS, Agreement
from .capture import capture, remaining_ops
from .description import (
    FORMATS,
    METADATA_FILE,
    OUTPUTS,
    Description,
    ExportedFile,
    ExportFormat,
    Precision,
    read_description,
)
from .exported_model import ExportedModel
from .inference_graph import InferenceGraph
from .programs import SUFFIXES, check_tools, open_program, versions_of, write_program

__all__ = ["export_model"]

_DTYPES: Mapping[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def export_model(
    model: nn.Module,
    path: str | Path,
    *,
    format: ExportFormat,
    metadata: Metadata,
    images: Sequence[Tensor],
    resize: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Description:
    """Write a model as a file of another runtime, with ``metadata.json`` beside it.

    The file is opened again and compared with the model on ``images`` before it gets its name, so that a wrong file is never
    written.

    Args:
        model: a detector of hydet in evaluation mode, in the exact form (see ``hydet.optimize``). It does not change.
        path: the new file; its suffix is ``.onnx``, or ``.pt2`` for the other formats.
        format: ``"onnx"`` for ONNX Runtime, ``"torch_export"`` for ``torch.export.load``, ``"aoti"`` for compiled code of
            AOTInductor, which fits the processor of this machine.
        metadata: class names and ids.
        images: ``(3, H, W)`` uint8 RGB images for the comparison, resized as in evaluation.
        resize: how images are resized; see ``Description``.
        precision: of the backbone and the heads; see ``docs/export.md`` for the bounds.
        sizes: (height, width) of the images that the graph takes, one file per size; None for any size.

    Returns:
        The content of ``metadata.json``.

    Raises:
        ImportError: if a package of the format is missing.
        TypeError: if the model has no tensor core.
        ValueError: if an argument is out of range, or the format cannot express the model.
        ExportMismatchError: if the exported graph computes something else than the model.
        WriteError: if a file cannot be written.
    """
    path = Path(path)
    _check_arguments(model, path, format, precision, sizes, images)
    assert isinstance(model, MetaArchitecture)
    check_tools(format)
    _check_folder(path)
    exported = copy.deepcopy(model).eval()
    if (
        precision != "fp32"
    ):  # in float32, the graph stays bit by bit that of the model; runtimes fold norms themselves
        fold_norms(exported)
        to_reduced_precision(exported, _DTYPES[precision])
    graph = InferenceGraph(exported)
    for height, width in sizes or ():
        if graph.square_size and max(height, width) > graph.square_size:
            raise ValueError(
                f"sizes: {height} x {width} does not fit the model, which takes {graph.square_size} pixels"
            )

    thresholds = thresholds_of(model)
    agreement = Agreement(BOUNDS[precision], thresholds["score"], thresholds["max_detections"])
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = unfinished_path(path)
        unfinished.mkdir()
    try:
        files: list[ExportedFile] = []
        needs_hydet: tuple[str, ...] = ()
        outputs: dict[str, str] = {}
        for size in sizes or (None,):
            name = (
                path.name
                if size is None or len(sizes or ()) == 1
                else f"{path.stem}_{size[0]}x{size[1]}{path.suffix}"
            )
            program = capture(graph, size, model.device)
            outputs = {key: OUTPUTS[key] for key in _output_names(program)}
            written = write_program(program, unfinished / name, format, list(outputs))
            needs_hydet = tuple(
                op for op in remaining_ops(written) if format != "onnx" or op != "hydet::nms_padded"
            )
            files.append(ExportedFile(name, size, hash_file(unfinished / name)))
            del program, written
        description = Description(
            format=format,
            precision=precision,
            architecture=type(model).__name__,
            tasks=tuple(model.tasks),
            files=tuple(files),
            outputs=outputs,
            dataset=metadata,
            resize=resize,
            thresholds=thresholds,
            max_size=graph.square_size or None,
            device=None if format == "onnx" else model.device.type,
            needs_hydet=needs_hydet,
            weights_sha256=_hash_weights(model),
            versions=versions_of(format),
            check={},
        )
        _compare(model, description, unfinished, images, agreement)
        description = Description(**vars(description) | {"check": agreement.summary()})
        agreement.check(f"{path.name} ({format}, {precision})")
        with naming_write_errors(path):
            for file in files:
                os.replace(unfinished / file.name, path.parent / file.name)
        write_atomically(path.parent / METADATA_FILE, description.to_json())
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return description


def _check_arguments(
    model: nn.Module,
    path: Path,
    format: str,
    precision: str,
    sizes: Sequence[tuple[int, int]] | None,
    images: Sequence[Tensor],
) -> None:
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if precision not in _DTYPES:
        raise ValueError(f"precision must be one of {', '.join(_DTYPES)}, got {precision!r}")
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"a file of format={format} ends in {SUFFIXES[format]}, got {path}")
    if not isinstance(model, MetaArchitecture):
        raise TypeError(
            f"{type(model).__name__} has no tensor core, so it cannot be exported; it is not a hydet model"
        )
    if model.needs_proposals:
        raise ValueError("the model needs proposals with each image, so it cannot be exported")
    if format == "onnx" and {"rotated", "rotated_proposals"} & set(model.tasks):
        raise ValueError("ONNX has no operator for rotated boxes: use format=torch_export or format=aoti")
    if format == "onnx" and precision == "bf16":
        raise ValueError("ONNX Runtime computes no convolutions in bf16 on a CPU: use precision=fp16")
    if sizes is not None and (not sizes or any(len(size) != 2 or min(size) < 1 for size in sizes)):
        raise ValueError(f"sizes must be pairs of height and width in pixels, got {sizes}")
    if not images:
        raise ValueError("export_model needs at least one image for the comparison with the model")
    for image in images:
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"images must be (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}")


def _check_folder(path: Path) -> None:
    """Check that the folder does not hold another export, whose ``metadata.json`` would be lost.

    Raises:
        FileExistsError: if it does.
    """
    existing = path.parent / METADATA_FILE
    if not existing.exists():
        return
    try:
        names = [file.name for file in read_description(existing).files]
    except ValueError as error:
        raise FileExistsError(f"{existing} would be overwritten, choose another folder: {error}") from error
    if path.name not in names:
        raise FileExistsError(
            f"{existing} describes {', '.join(names)}: choose another folder for {path.name}"
        )


def _output_names(program: torch.export.ExportedProgram) -> list[str]:
    spec = program.call_spec.out_spec
    assert spec is not None
    return list(spec.context)


def _compare(
    model: MetaArchitecture,
    description: Description,
    folder: Path,
    images: Sequence[Tensor],
    agreement: Agreement,
) -> None:
    """Run model and files on each image alone, and on pairs of images of different sizes."""
    for file in description.files:
        program = open_program(
            folder / file.name, description.format, model.device, list(description.outputs)
        )
        exported = ExportedModel(description, {file.size: program}, model.device)
        batches = comparison_batches(images, file.size, description.max_size)
        for batch in batches:
            inputs: list[ModelInput] = [{"image": image} for image in batch]
            flipped: list[ModelInput] = [
                {"image": image.flip(0) if model.input_format == "BGR" else image} for image in batch
            ]
            with torch.no_grad():
                agreement.add(model.inference(flipped), exported(inputs))


def comparison_batches(
    images: Sequence[Tensor], size: tuple[int, int] | None, max_size: int | None
) -> list[list[Tensor]]:
    """Return each image alone, and a batch of two images of different sizes.

    Args:
        images: ``(3, H, W)`` each.
        size: (height, width) that the graph takes; None for any size.
        max_size: largest side that the graph takes; None for any.
    """
    fitted = [_fit(image, size, max_size) for image in images]
    smaller = [_shrink(image) for image in fitted[1:]] or [_shrink(fitted[0])]
    return [*([image] for image in fitted), [fitted[0], smaller[0]]]


def _fit(image: Tensor, size: tuple[int, int] | None, max_size: int | None) -> Tensor:
    """Resize an image to the only size that a graph takes, or below the largest."""
    if size is not None:
        return resize_with_pillow(image, size)
    height, width = image.shape[1], image.shape[2]
    if max_size is None or max(height, width) <= max_size:
        return image
    scale = max_size / max(height, width)
    return resize_with_pillow(image, (max(1, int(height * scale)), max(1, int(width * scale))))


def _shrink(image: Tensor) -> Tensor:
    """Return three quarters of an image, so that a batch has padding."""
    return image[:, : max(1, image.shape[1] * 3 // 4), : max(1, image.shape[2] * 3 // 4)].contiguous()


def thresholds_of(model: MetaArchitecture) -> dict[str, Any]:
    """Return the thresholds that the graph contains, and those of the postprocessing."""
    values: dict[str, Any] = {"score": None, "nms": None, "max_detections": -1, "mask": 0.5}
    if isinstance(model, DenseDetector):
        values |= {
            "score": model.test_score_thresh,
            "nms": model.test_nms_thresh,
            "max_detections": model.max_detections_per_image,
        }
    elif isinstance(model, GeneralizedRCNN):
        limits = model.roi_heads.detection_limits
        scores = [getattr(m, "test_score_thresh", None) for m in model.modules()]
        values |= {
            "score": [float(score) for score in scores if score is not None][-1],
            "nms": limits.nms_thresh,
            "max_detections": limits.topk_per_image,
        }
    if isinstance(model, PanopticFPN):
        values |= {
            "panoptic_overlap": model.combine_overlap_thresh,
            "panoptic_stuff_area": model.combine_stuff_area_thresh,
            "panoptic_instance_score": model.combine_instances_score_thresh,
        }
    return values


def _hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 of names and values of the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
