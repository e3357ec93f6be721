"""Grouping of images by orientation, so that each batch is all portrait or all landscape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hydet.data.loading.workers import ImageRequest

__all__ = ["group_batches", "orientation_groups"]


def orientation_groups(aspect_ratios: np.ndarray) -> np.ndarray | None:
    """Assign each image to the portrait or the landscape group.

    Args:
        aspect_ratios: ``(N,)`` width divided by height.

    Returns:
        ``(N,)`` int8: 0 for portrait and square images, 1 for landscape. None if all images are in one group.
    """
    groups = (np.asarray(aspect_ratios) > 1).astype(np.int8)
    return groups if groups.size and groups.min() != groups.max() else None


def group_batches(
    stream: Iterable[ImageRequest], batch_size: int, groups: np.ndarray | None
) -> Iterator[list[ImageRequest]]:
    """Collect a stream of requests into batches whose images belong to the same group.

    A batch is padded to its largest image, so mixing portrait and landscape would waste memory and time.

    Args:
        stream: requests, possibly endless. Incomplete batches at its end are dropped.
        batch_size: images per batch.
        groups: ``(N,)`` group of each image of the dataset; None puts all images into one group.
    """
    waiting: dict[int, list[ImageRequest]] = {}
    for request in stream:
        group = 0 if groups is None else int(groups[request.image_index])
        batch = waiting.setdefault(group, [])
        batch.append(request)
        if len(batch) == batch_size:
            yield batch
            waiting[group] = []
