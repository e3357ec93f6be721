"""An exported file as a model: from model inputs to the results that hydet's own models return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hydet.data import InputMapper, Metadata, Resize, ResizeShortestEdge
from hydet.files import hash_file
from hydet.modeling.meta_arch import combine_semantic_and_instance_outputs
from hydet.modeling.meta_arch.model_inputs import describe_input, output_size
from hydet.modeling.padded import PaddedResults, results_to_instances
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.protocols import Task
from hydet.structures import Instances, Losses, ModelInput, ModelOutput, SemanticScores, semantic_labels

from .description import METADATA_FILE, Description, read_description
from .programs import SUFFIXES, Program, open_program

__all__ = ["ExportedModel", "is_exported", "open_exported"]


class ExportedModel(nn.Module):
    """Runs an exported graph, and turns its outputs into the results that hydet's models return.

    Args:
        description: content of ``metadata.json``.
        programs: by size of the images that they take; the key None takes any size.
        device: where they run.

    Attributes:
        description: content of ``metadata.json``.
    """

    needs_proposals = False

    def __init__(
        self,
        description: Description,
        programs: Mapping[tuple[int, int] | None, Program],
        device: torch.device,
    ) -> None:
        super().__init__()
        self.description = description
        self._programs = dict(programs)
        self._device = device
        self.eval()

    def __repr__(self) -> str:
        """Return the architecture and the format."""
        return f"ExportedModel({self.description.architecture}, {self.description.format})"

    @property
    def metadata(self) -> Metadata:
        """Class names and ids of the training data."""
        return self.description.dataset

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model, most important first."""
        return self.description.tasks  # type: ignore[return-value]

    @property
    def input_format(self) -> str:
        """``"RGB"``: the graph itself orders the channels as its weights expect."""
        return "RGB"

    @property
    def device(self) -> torch.device:
        """Device of the results."""
        return self._device

    def build_mapper(self) -> InputMapper:
        """Return the mapper that prepares images as in the evaluation of the model."""
        resize = self.description.resize
        transforms: list[ResizeShortestEdge | Resize] = []
        if resize is not None and resize["name"] == "shortest_edge":
            transforms.append(ResizeShortestEdge(short=resize["short"], max_size=resize["max_size"]))
        elif resize is not None:
            transforms.append(Resize(size=resize["size"]))
        return InputMapper(transforms=transforms, training=False, mask_format=None, channel_order="RGB")

    def forward(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Return one result per image, with pasted masks.

        Args:
            batched_inputs: one dict per image with ``image`` (3, H, W), uint8 RGB; ``height`` and ``width`` of the
                results are optional.

        Raises:
            TypeError: if an image is not uint8.
            ValueError: if an image does not have three channels, or is too large for the graph.
        """
        return self._detect(batched_inputs, keep_small=False)

    def detect_unpasted(
        self, batched_inputs: Sequence[ModelInput], *, with_losses: bool
    ) -> tuple[Losses, list[ModelOutput]]:
        """Return no losses, and results whose masks and semantic scores stay small.

        Raises:
            ValueError: if losses are selected, since an exported graph computes none.
        """
        if with_losses:
            raise ValueError("an exported model computes no losses: evaluate it without them")
        return {}, self._detect(batched_inputs, keep_small=True)

    def run(self, images: Sequence[Tensor]) -> tuple[Mapping[str, Tensor], list[tuple[int, int]]]:
        """Run the graph on images of any size, padded to a common one.

        Args:
            images: ``(3, H, W)`` uint8 RGB each.

        Returns:
            The outputs by name, as ``metadata.json`` describes them, and the sizes of the images.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (max(sides) for sides in zip(*sizes))
        size = self._choose_size(height, width)
        canvas = images[0].new_zeros(len(images), 3, *(size or (height, width)))
        for row, image in zip(canvas, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return self._programs[size](canvas, torch.tensor(sizes)), sizes

    def _choose_size(self, height: int, width: int) -> tuple[int, int] | None:
        limit = self.description.max_size
        if limit is not None and max(height, width) > limit:
            raise ValueError(f"the exported graph takes images up to {limit} pixels, got {height} x {width}")
        if None in self._programs:
            return None
        fitting = [s for s in self._programs if s is not None and s[0] >= height and s[1] >= width]
        if not fitting:
            sizes = ", ".join(f"{s[0]} x {s[1]}" for s in self._programs if s is not None)
            raise ValueError(f"the exported graphs take images up to {sizes}, got {height} x {width}")
        return min(fitting, key=lambda s: s[0] * s[1])

    def _detect(self, batched_inputs: Sequence[ModelInput], *, keep_small: bool) -> list[ModelOutput]:
        for entry in batched_inputs:
            image = entry["image"]
            if image.dtype != torch.uint8:
                raise TypeError(
                    f"{describe_input(entry)}: an exported model takes uint8 images, got {image.dtype}"
                )
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(
                    f"{describe_input(entry)}: image must be (3, H, W), got {tuple(image.shape)}"
                )
        outputs, sizes = self.run([entry["image"] for entry in batched_inputs])
        results: list[ModelOutput] = [{} for _ in batched_inputs]
        if "boxes" in outputs:
            for result, detections, entry in zip(
                results, _to_instances(outputs, sizes), batched_inputs, strict=True
            ):
                frame = output_size(entry, detections.image_size)
                final = detector_postprocess(detections, *frame, paste_masks=not keep_small)
                result["proposals" if "classes" not in outputs else "instances"] = final
        if "semantic_logits" in outputs:
            for result, logits, size, entry in zip(
                results, outputs["semantic_logits"], sizes, batched_inputs, strict=True
            ):
                scores = SemanticScores(logits[:, : size[0], : size[1]], output_size(entry, size))
                result["sem_seg"] = scores if keep_small else scores.resize()
        if "panoptic" in self.tasks:
            for result in results:
                self._combine(result)
        return results

    def _combine(self, result: ModelOutput) -> None:
        """Add the panoptic segments to the result of an image."""
        thresholds = self.description.thresholds
        result["panoptic_seg"] = combine_semantic_and_instance_outputs(
            result["instances"],
            semantic_labels(result["sem_seg"]),
            thresholds["panoptic_overlap"],
            thresholds["panoptic_stuff_area"],
            thresholds["panoptic_instance_score"],
        )


def _to_instances(outputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    padded = PaddedResults(
        boxes=outputs["boxes"],
        scores=outputs["scores"],
        classes=outputs.get("classes"),
        counts=outputs["counts"],
        keypoint_logits=outputs.get("keypoint_heatmaps"),
    )
    instances = results_to_instances(padded, sizes)
    if "masks" in outputs:
        for detections, masks in zip(instances, outputs["masks"], strict=True):
            detections.pred_masks = masks[: len(detections), None]
    return instances


def open_exported(
    path: str | Path, *, device: str | torch.device = "cpu", verify: bool = True
) -> ExportedModel:
    """Open an exported model.

    Args:
        path: the file (``.onnx`` or ``.pt2``), or its folder; ``metadata.json`` lies beside the file.
        device: where ONNX Runtime computes. A ``.pt2`` file runs on the device for which it was exported.
        verify: compare the hashes of the files.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or belongs to something else.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    for needed in (path, folder / METADATA_FILE):
        if not needed.exists():
            raise FileNotFoundError(
                f"{needed}: no such file; an exported model is a file with {METADATA_FILE} beside it"
            )
    description = read_description(folder / METADATA_FILE)
    names = [file.name for file in description.files]
    if path.is_file() and path.name not in (*names, METADATA_FILE):
        raise ValueError(f"{folder / METADATA_FILE} describes {', '.join(names)}, not {path.name}")
    for file in description.files:
        if not (folder / file.name).is_file():
            raise FileNotFoundError(f"{folder / file.name}: no such file, but {METADATA_FILE} names it")
        if verify and hash_file(folder / file.name) != file.sha256:
            raise ValueError(
                f"{folder / file.name} is damaged or was replaced: its hash is not that in {METADATA_FILE}"
            )
    where = torch.device(device if description.device is None else description.device)
    output_names = list(description.outputs)
    programs = {
        file.size: open_program(folder / file.name, description.format, where, output_names)
        for file in description.files
    }
    return ExportedModel(description, programs, where)


def is_exported(path: str | Path) -> bool:
    """Return True for the file or the folder of an exported model, without reading the graph.

    A file that ends like an exported one also counts if its ``metadata.json`` is missing, so that ``open_exported`` says so.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix in SUFFIXES.values():
        return True
    if not (path.is_dir() and (folder / METADATA_FILE).is_file()):
        return False
    try:
        read_description(folder / METADATA_FILE)
    except ValueError:  # such as a checkpoint, whose folder has a file of this name too
        return False
    return True
