"""Semantic label maps that belong to a COCO file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hydet.data.errors import DataError
from hydet.data.images.reading import read_labels

__all__ = ["check_label_map_size", "read_semantic_labels"]


def read_semantic_labels(folder: Path, image_name: str, size: tuple[int, int]) -> np.ndarray:
    """Read the semantic label map of an image.

    Args:
        folder: folder of label maps, PNG files with the names of the images.
        image_name: file name of the image.
        size: (height, width) of the image.

    Returns:
        ``(H, W)`` labels: uint8 if the file has 8 bits per pixel, otherwise int64.

    Raises:
        DataError: if the file is missing, broken, has several channels or another size.
    """
    path = folder / Path(image_name).with_suffix(".png")
    labels = read_labels(path)
    if labels.ndim != 2:
        raise DataError(f"{path}: a label map must have one channel, got shape {labels.shape}")
    check_label_map_size(labels, size, f"{path}: the label map")
    return labels if labels.dtype == np.uint8 else labels.astype(np.int64)


def check_label_map_size(labels: np.ndarray, size: tuple[int, int], name: str) -> None:
    """Check that a label map has the size of its image.

    Args:
        labels: ``(H, W)``.
        size: (height, width) of the image.
        name: file and kind of the map, for the message.

    Raises:
        DataError: if the sizes differ.
    """
    if labels.shape != size:
        height, width = labels.shape
        raise DataError(f"{name} has {width} x {height} pixels, the image {size[1]} x {size[0]}")
