"""Semantic label maps that belong to a COCO file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hydet.data.errors import DataError
from hydet.data.images.reading import read_labels

__all__ = ["IGNORED_LABEL", "check_label_map_size", "check_num_labels", "read_semantic_labels"]

IGNORED_LABEL = 255  # pixels without a label


def read_semantic_labels(
    folder: Path, image_name: str, size: tuple[int, int], *, num_labels: int | None = None
) -> np.ndarray:
    """Read the semantic label map of an image.

    Args:
        folder: folder of label maps, PNG files with the names of the images.
        image_name: file name of the image.
        size: (height, width) of the image.
        num_labels: number S of semantic labels; None to accept any label.

    Returns:
        ``(H, W)`` labels: uint8 if the file has 8 bits per pixel, otherwise int64.

    Raises:
        DataError: if the file is missing, broken, has several channels or another size, or has a label outside 0 ... S-1
            other than 255.
    """
    path = folder / Path(image_name).with_suffix(".png")
    labels = read_labels(path)
    if labels.ndim != 2:
        raise DataError(f"{path}: a label map must have one channel, got shape {labels.shape}")
    check_label_map_size(labels, size, f"{path}: the label map")
    if num_labels is not None:
        is_unknown = (labels >= num_labels) & (labels != IGNORED_LABEL)
        if is_unknown.any():
            raise DataError(
                f"{path}: has the label {labels[is_unknown].max()}, but there are {num_labels} labels: "
                f"0 ... {num_labels - 1}, and {IGNORED_LABEL} for pixels to ignore"
            )
    return labels if labels.dtype == np.uint8 else labels.astype(np.int64)


def check_num_labels(num_labels: int, name: str) -> None:
    """Raise a DataError if there are too many semantic labels; ``name`` is the file, for the message."""
    if num_labels > IGNORED_LABEL:
        raise DataError(
            f"{name}: there are {num_labels} semantic labels, but at most {IGNORED_LABEL} are possible, because label "
            f"{IGNORED_LABEL} stands for pixels without a label; merge some of them"
        )


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
