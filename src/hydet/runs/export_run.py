"""Export a trained detector with the settings of its config, and compare the file on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from hydet.config import ConfigError
from hydet.data import InputMapper, Resize, ResizeShortestEdge
from hydet.data.images.reading import ImageReader
from hydet.data.mapping.transforming import Transform
from hydet.data.shapes import ShapesDataset
from hydet.export import Description, ExportedModel, ExportFormat, Precision, export_model

from .build import build_mapper
from .image_files import find_images
from .open_checkpoint import LoadedDetector
from .prediction import build_image_reader, unlabeled_record

__all__ = ["check_images", "describe_resizing", "export_detector"]

NUM_IMAGES = 2
_SHAPES_SIZE = (240, 320)


def export_detector(
    detector: LoadedDetector,
    path: Path,
    *,
    format: ExportFormat,
    precision: Precision = "fp32",
    sizes: Sequence[tuple[int, int]] | None = None,
    images: str | None = None,
) -> Description:
    """Export a detector that was opened in the exact form.

    Args:
        detector: from ``open_detector``.
        path: see ``export_model``.
        format: see ``export_model``.
        precision: see ``export_model``.
        sizes: see ``export_model``.
        images: file, folder or pattern of images for the comparison; by default generated images of shapes.

    Raises:
        ConfigError: if the model is an exported one, or images are prepared by something else than a resizing.
        ValueError: see ``export_model``.
    """
    if isinstance(detector.model, ExportedModel):
        raise ConfigError(f"{detector.origin} is an exported model: export the checkpoint that it came from")
    mapper = build_mapper(detector.config, detector.model, training=False, labeled=False)
    read = build_image_reader(detector.config, OmegaConf.create({}))
    return export_model(
        detector.model,
        path,
        format=format,
        metadata=detector.metadata,
        images=check_images(mapper, images, read),
        resize=describe_resizing(mapper.transforms),
        precision=precision,
        sizes=sizes,
    )


def describe_resizing(transforms: Sequence[Transform]) -> Mapping[str, Any] | None:
    """Return the resizing of images before the model, as ``metadata.json`` states it; None if there is none.

    Raises:
        ConfigError: if there are other transforms, which an exported model could not repeat.
    """
    if not transforms:
        return None
    if len(transforms) == 1:
        (transform,) = transforms
        if isinstance(transform, ResizeShortestEdge) and len(transform.short) == 1:
            return {"name": "shortest_edge", "short": transform.short[0], "max_size": transform.max_size}
        if isinstance(transform, Resize):
            return {"name": "fixed", "size": list(transform.size)}
    names = ", ".join(type(transform).__name__ for transform in transforms)
    raise ConfigError(
        f"augment.test: an exported model can resize images by ResizeShortestEdge with one length, or by Resize; got {names}"
    )


def check_images(mapper: InputMapper, source: str | None, read: ImageReader) -> list[Tensor]:
    """Return some images as the model receives them in evaluation, but with RGB channels.

    Args:
        mapper: of the model.
        source: file, folder or pattern; None generates images of shapes.
        read: settings for reading files.
    """
    if source is None:
        dataset = ShapesDataset(num_images=NUM_IMAGES, seed=13, image_size=_SHAPES_SIZE, max_size=0.5)
        images = [dataset[i].image for i in range(NUM_IMAGES)]
    else:
        images = [read(file) for file in find_images(source)[:NUM_IMAGES]]
    resized = [
        mapper(unlabeled_record(image, image_id=i, file_name=f"image {i}"))["image"]
        for i, image in enumerate(images)
    ]
    return [image.flip(0) if mapper.channel_order == "BGR" else image for image in resized]
