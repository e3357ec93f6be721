"""Ground-truth label maps in model inputs."""

from __future__ import annotations

import numpy as np

from hydet.structures import ModelInput

__all__ = ["ground_truth_map", "image_name"]


def image_name(entry: ModelInput) -> str:
    """Return the file name of an input, or its image id, for messages."""
    return str(entry.get("file_name") or f"image {entry.get('image_id', '?')}")


def ground_truth_map(entry: ModelInput, key: str, size: tuple[int, ...]) -> np.ndarray:
    """Return a label map in the frame of the original image.

    Args:
        entry: model input with ``entry["ground_truth"]``.
        key: ``"sem_seg"`` or ``"panoptic_seg"``.
        size: (height, width) of the prediction.

    Returns:
        ``(H, W)`` integers.

    Raises:
        ValueError: if the input has no such map, or its size differs.
    """
    labels = entry.get("ground_truth", {}).get(key)
    if labels is None:
        raise ValueError(
            f"{image_name(entry)}: no ground truth {key!r} to compare with; the dataset must have it, "
            "and the loader must be one for evaluation"
        )
    array = np.asarray(labels)
    if array.shape != size:
        raise ValueError(
            f"{image_name(entry)}: the model's {key} has {size[1]} x {size[0]} pixels, the ground truth "
            f"has shape {array.shape} as (height, width)"
        )
    return array
