"""The ground truth that inputs carry at evaluation time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["ground_truth_map", "image_name"]


def image_name(entry: Mapping[str, Any]) -> str:
    """What to call an input in messages."""
    return str(entry.get("file_name") or f"image {entry.get('image_id', '?')}")


def ground_truth_map(entry: Mapping[str, Any], key: str, size: tuple[int, int]) -> np.ndarray:
    """A label map in the frame of the original image.

    Args:
        entry: an input of the model with ``entry["ground_truth"]``.
        key: ``"sem_seg"`` or ``"panoptic_seg"``.
        size: (height, width) of what it will be compared with.

    Returns:
        ``(H, W)`` integers.

    Raises:
        ValueError: if the input carries no such map, or one of another size.
    """
    labels = entry.get("ground_truth", {}).get(key)
    if labels is None:
        raise ValueError(
            f"{image_name(entry)}: no ground truth {key!r} to compare with: the dataset must have it, "
            "and the loader be one for evaluation"
        )
    array = np.asarray(labels)
    if array.shape != size:
        raise ValueError(
            f"{image_name(entry)}: the model's {key} has {size[1]} x {size[0]} pixels, the ground truth "
            f"has shape {array.shape} as (height, width)"
        )
    return array
