"""Batches of images with the same orientation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hydet.data.loading.workers import ImageRequest

__all__ = ["group_batches", "orientation_groups"]


def orientation_groups(aspect_ratios: np.ndarray) -> np.ndarray | None:
    """Sort images into portrait and landscape.

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
    """Collect a stream into batches whose images all belong to one group.

    A batch is padded to its largest image, so mixing portrait and landscape would waste memory and time.

    Args:
        stream: requests, possibly without end. Those of a batch that is never filled are dropped.
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
