"""Run a model on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from hydet.data import DataError, InputMapper, Record
from hydet.data.images.reading import MAX_PIXELS, ImageReader
from hydet.engine.model_outputs import move_to_cpu
from hydet.structures import ModelInput, ModelOutput
from hydet.structures.model_io import DefersPasting

from .sources import SourceImage

__all__ = [
    "Prediction",
    "PredictsImages",
    "build_image_reader",
    "predict_images",
    "unlabeled_record",
]

# Turns a batch of model inputs into results: a model of hydet, any module, or an exported model.
PredictsImages = Callable[[Sequence[ModelInput]], Sequence[ModelOutput]]


class Prediction(NamedTuple):
    """One image and its result.

    Attributes:
        record: the image as it was read.
        model_input: what the model received.
        output: the result, on the CPU. Masks and semantic scores of models of hydet stay small: ``ROIMasks`` and
            ``SemanticScores``.
        time: when a frame of a video is shown, in seconds; None for other images.
    """

    record: Record
    model_input: ModelInput
    output: ModelOutput
    time: float | None = None


@torch.no_grad()
def predict_images(
    model: PredictsImages,
    mapper: InputMapper,
    images: Iterable[SourceImage],
    *,
    batch_size: int = 1,
    failed: list[str] | None = None,
) -> Iterator[Prediction]:
    """Yield the prediction for every image, in order; images are read as they are needed.

    Args:
        model: in evaluation mode.
        mapper: makes model inputs from records.
        images: the images; their position, counted from 1, becomes ``image_id``.
        batch_size: number of images per forward pass.
        failed: receives a line for each image that cannot be read. Without it, such an image raises ``DataError``.
    """
    batch: list[tuple[Record, ModelInput, float | None]] = []
    for image_id, source_image in enumerate(images, start=1):
        if source_image.image is None:
            error = source_image.error or f"{source_image.name} cannot be read"
            if failed is None:
                raise DataError(error)
            failed.append(error)
            continue
        record = unlabeled_record(source_image.image, image_id=image_id, file_name=source_image.name)
        batch.append((record, mapper(record), source_image.time))
        if len(batch) == batch_size:
            yield from _run(model, batch)
            batch = []
    if batch:
        yield from _run(model, batch)


def _run(
    model: PredictsImages, batch: Sequence[tuple[Record, ModelInput, float | None]]
) -> Iterator[Prediction]:
    inputs = [model_input for _, model_input, _ in batch]
    # Masks of photos of 12 megapixels take gigabytes once they are pasted.
    outputs: Sequence[ModelOutput]
    outputs = (
        model.detect_unpasted(inputs, with_losses=False)[1]
        if isinstance(model, DefersPasting)
        else model(inputs)
    )
    for (record, model_input, time), output in zip(batch, outputs, strict=True):
        yield Prediction(record, model_input, move_to_cpu(output), time)


def build_image_reader(trained: DictConfig, given: DictConfig) -> ImageReader:
    """Build the reader of images from the settings of a command, or from those of the training data where they are null.

    Args:
        trained: config of the checkpoint; its ``data`` may have ``value_range`` and ``max_pixels``.
        given: config of the command.

    Raises:
        ValueError: if a setting is out of range; the message names it.
    """

    def setting(name: str) -> Any:  # ImageReader checks it
        value = OmegaConf.select(given, name)
        value = OmegaConf.select(trained, f"data.{name}") if value is None else value
        return OmegaConf.to_container(value) if isinstance(value, ListConfig) else value

    return ImageReader(
        value_range=setting("value_range") or "auto", max_pixels=setting("max_pixels") or MAX_PIXELS
    )


def unlabeled_record(image: Tensor, *, image_id: int, file_name: str) -> Record:
    """Return a record of ``image`` (3, H, W) without annotations."""
    return Record(
        image=image,
        image_id=image_id,
        file_name=file_name,
        height=int(image.shape[1]),
        width=int(image.shape[2]),
        boxes=torch.zeros(0, 4),
        classes=torch.zeros(0, dtype=torch.int64),
        iscrowd=torch.zeros(0, dtype=torch.bool),
        annotation_ids=torch.zeros(0, dtype=torch.int64),
    )
