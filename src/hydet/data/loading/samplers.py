"""Which image comes when: endless streams for training that depend on a seed and a position alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hydet.data.hashing import hashed

__all__ = [
    "RepeatFactorSampler",
    "ShuffleSampler",
    "grouped_batches",
    "make_repeat_factor_sampler",
    "make_shuffle_sampler",
    "repeat_factors",
]


class ShuffleSampler:
    """An endless stream of indices, shuffled anew in every epoch.

    Args:
        size: of the dataset.
        seed: of the order.
        shuffle: False gives every epoch in order.

    Raises:
        ValueError: if the dataset is empty.
    """

    def __init__(self, *, size: int, seed: int = 0, shuffle: bool = True) -> None:
        if size < 1:
            raise ValueError("cannot train on an empty dataset")
        self.size = size
        self.seed = seed
        self.shuffle = shuffle

    def epoch(self, number: int) -> np.ndarray:
        """The indices of one epoch, int64, in order."""
        if not self.shuffle:
            return np.arange(self.size)
        return np.random.default_rng(hashed(self.seed, number)).permutation(self.size)

    def setting(self) -> dict[str, Any]:
        """What the order depends on, as numbers and strings: samplers whose orders differ should differ here."""
        return {"sampler": type(self).__name__, "seed": self.seed, "shuffle": self.shuffle}

    def stream(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple[int, int]]:
        """Every ``world_size``-th (index, seed of the sample), from the ``rank``-th on, without end."""
        position = 0
        for number in _counting():
            for index in self.epoch(number).tolist():
                if position % world_size == rank:
                    yield index, hashed(self.seed, -1, position)
                position += 1


class RepeatFactorSampler(ShuffleSampler):
    """Repeats images of rare classes.

    An image with factor 2.3 comes twice in every epoch, and a third time in 30% of them.

    Args:
        factors: at least 1 for each image, such as ``repeat_factors`` gives.
        seed: of the order and the fractions.
        shuffle: False gives every epoch in order.

    Source: Gupta et al. 2019 (arXiv:1908.03195), appendix B.2.
    """

    def __init__(self, *, factors: Sequence[float] | np.ndarray, seed: int = 0, shuffle: bool = True) -> None:
        self.factors = np.asarray(factors, dtype=np.float64)
        if (self.factors <= 0).any():
            raise ValueError(f"repeat factors must be positive, got {self.factors.min()}")
        super().__init__(size=len(self.factors), seed=seed, shuffle=shuffle)

    def epoch(self, number: int) -> np.ndarray:
        rng = np.random.default_rng(hashed(self.seed, number))
        whole = np.floor(self.factors)
        times = whole + (rng.random(self.size) < self.factors - whole)
        indices = np.repeat(np.arange(self.size), times.astype(np.int64))
        return rng.permutation(indices) if self.shuffle else indices

    def setting(self) -> dict[str, Any]:
        return {**super().setting(), "mean_repeat_factor": float(self.factors.mean())}


def make_shuffle_sampler(*, dataset: Any, seed: int = 0, shuffle: bool = True) -> ShuffleSampler:
    """A sampler that gives every image of a dataset once an epoch.

    Args:
        dataset: of known length.
        seed: of the order.
        shuffle: False gives every epoch in order.

    Raises:
        ValueError: if the dataset is empty.
    """
    return ShuffleSampler(size=len(dataset), seed=seed, shuffle=shuffle)


def make_repeat_factor_sampler(
    *, dataset: Any, threshold: float = 0.001, seed: int = 0, shuffle: bool = True
) -> RepeatFactorSampler:
    """A sampler that gives the images of a dataset the more often, the rarer their rarest class is.

    Args:
        dataset: with ``classes_of_images()``, as those of :mod:`hydet.data` have.
        threshold: a class in a smaller fraction of the images is rare.
        seed: of the order and the fractions.
        shuffle: False gives every epoch in order.

    Raises:
        TypeError: if the dataset cannot tell the classes of its images.
        ValueError: if the dataset is empty, or the threshold is not positive.

    Source: Gupta et al. 2019 (arXiv:1908.03195), appendix B.2.
    """
    if not hasattr(dataset, "classes_of_images"):
        raise TypeError(
            f"make_repeat_factor_sampler: {type(dataset).__name__} has no classes_of_images(), "
            "which gives a list of classes for each image"
        )
    factors = repeat_factors(dataset.classes_of_images(), threshold)
    return RepeatFactorSampler(factors=factors, seed=seed, shuffle=shuffle)


def repeat_factors(classes_of_images: Sequence[Sequence[int]], threshold: float = 0.001) -> np.ndarray:
    """How often to repeat each image, for the sake of its rarest class.

    Args:
        classes_of_images: for each image the classes in it.
        threshold: a class in a smaller fraction of the images is rare.

    Returns:
        ``(N,)`` float64, ``max over its classes of max(1, sqrt(threshold / fraction of images with the class))``;
        1 for an image without objects.

    Raises:
        ValueError: if the threshold is not positive.

    Source: Gupta et al. 2019 (arXiv:1908.03195), appendix B.2.
    """
    if threshold <= 0:
        raise ValueError(f"threshold is a fraction of the images, above 0, got {threshold}")
    sets = [set(classes) for classes in classes_of_images]
    counts: dict[int, int] = {}
    for classes in sets:
        for c in classes:
            counts[c] = counts.get(c, 0) + 1
    of_class = {c: max(1.0, math.sqrt(threshold / (n / len(sets)))) for c, n in counts.items()}
    return np.array([max((of_class[c] for c in classes), default=1.0) for classes in sets])


def grouped_batches(
    stream: Iterator[tuple[int, int]], batch_size: int, groups: np.ndarray | None
) -> Iterator[list[tuple[int, int]]]:
    """Collect a stream into batches whose images all belong to one group.

    Args:
        stream: of (index, seed).
        batch_size: images in a batch.
        groups: ``(N,)`` group of each image, such as upright and wide ones; None for no grouping.
    """
    waiting: dict[int, list[tuple[int, int]]] = {}
    for index, seed in stream:
        group = 0 if groups is None else int(groups[index])
        batch = waiting.setdefault(group, [])
        batch.append((index, seed))
        if len(batch) == batch_size:
            yield batch
            waiting[group] = []


def _counting() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
