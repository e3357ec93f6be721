"""Samplers: endless streams of training images. Each element depends only on the seed and its position."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence, Sized

import numpy as np

from hydet.data.datasets.dataset import RecordSource, as_detection_dataset
from hydet.data.hashing import derive_seed
from hydet.data.loading.workers import ImageRequest

__all__ = [
    "RepeatFactorSampler",
    "Shard",
    "ShuffleSampler",
    "make_repeat_factor_sampler",
    "make_shuffle_sampler",
    "repeat_factors",
]

_SEED_OF_IMAGE = -1  # separates the seeds of images from those of epochs, whose numbers are not negative


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of a dataset or stream for one process: every ``world_size``-th image, starting at ``rank``.

    Args:
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        ValueError: if ``rank`` is not in 0 to ``world_size - 1``.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank must lie in 0 to world_size - 1, got rank {self.rank} and world_size {self.world_size}"
            )


class ShuffleSampler:
    """An endless stream of images, shuffled anew in every epoch.

    Args:
        size: number of images in the dataset.
        seed: seed of the order.
        shuffle: False keeps the order of the dataset in every epoch.

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
        """Return the int64 image indices of an epoch, in order."""
        if not self.shuffle:
            return np.arange(self.size)
        return np.random.default_rng(derive_seed(self.seed, number)).permutation(self.size)

    def setting(self) -> dict[str, str | float | bool]:
        """Return the values that determine the order.

        Checkpoints store them, so samplers with different orders must return different values.
        """
        return {"sampler": type(self).__name__, "seed": self.seed, "shuffle": self.shuffle}

    def stream(self, rank: int = 0, world_size: int = 1) -> Iterator[ImageRequest]:
        """Yield the requests of one process without end, each with a separate seed for augmentation."""
        position = 0
        for number in itertools.count():
            for index in self.epoch(number).tolist():
                if position % world_size == rank:
                    yield ImageRequest(index, derive_seed(self.seed, _SEED_OF_IMAGE, position))
                position += 1


class RepeatFactorSampler(ShuffleSampler):
    """Repeats images with rare classes, so that training samples them more often.

    An image with factor 2.3 appears twice in every epoch, and a third time in 30% of the epochs.

    Args:
        factors: ``(N,)`` positive repeat factor of each image, such as :func:`repeat_factors` returns.
        seed: seed of the order and of the fractional repeats.
        shuffle: False keeps the order of the dataset in every epoch.

    Raises:
        ValueError: if there are no factors, or one is not positive.

    Source: Gupta et al. 2019 (arXiv:1908.03195), appendix B.2.
    """

    def __init__(self, *, factors: Sequence[float] | np.ndarray, seed: int = 0, shuffle: bool = True) -> None:
        self.factors = np.asarray(factors, dtype=np.float64)
        if (self.factors <= 0).any():
            raise ValueError(f"repeat factors must be positive, got {self.factors.min()}")
        super().__init__(size=len(self.factors), seed=seed, shuffle=shuffle)

    def epoch(self, number: int) -> np.ndarray:
        """Return the int64 image indices of an epoch, in order. Its length varies with the fractional repeats."""
        rng = np.random.default_rng(derive_seed(self.seed, number))
        whole = np.floor(self.factors)
        repeats = whole + (rng.random(self.size) < self.factors - whole)
        indices = np.repeat(np.arange(self.size), repeats.astype(np.int64))
        return rng.permutation(indices) if self.shuffle else indices

    def setting(self) -> dict[str, str | float | bool]:
        """Return the values that determine the order."""
        return {**super().setting(), "mean_repeat_factor": float(self.factors.mean())}


def make_shuffle_sampler(*, dataset: Sized, seed: int = 0, shuffle: bool = True) -> ShuffleSampler:
    """Make a sampler that yields each image of a dataset once per epoch.

    Args:
        dataset: any object with a length.
        seed: seed of the order.
        shuffle: False keeps the order of the dataset in every epoch.

    Raises:
        ValueError: if the dataset is empty.
    """
    return ShuffleSampler(size=len(dataset), seed=seed, shuffle=shuffle)


def make_repeat_factor_sampler(
    *, dataset: RecordSource, threshold: float = 0.001, seed: int = 0, shuffle: bool = True
) -> RepeatFactorSampler:
    """Make a sampler that repeats each image of a dataset according to its rarest class.

    Args:
        dataset: records; a dataset that does not define ``classes_of_images()`` is read once, with a warning.
        threshold: classes in a smaller fraction of the images are rare.
        seed: seed of the order and of the fractional repeats.
        shuffle: False keeps the order of the dataset in every epoch.

    Raises:
        TypeError: if the items of the dataset are not records.
        ValueError: if the dataset is empty, or the threshold is not positive.

    Source: Gupta et al. 2019 (arXiv:1908.03195), appendix B.2.
    """
    factors = repeat_factors(as_detection_dataset(dataset).classes_of_images(), threshold)
    return RepeatFactorSampler(factors=factors, seed=seed, shuffle=shuffle)


def repeat_factors(classes_of_images: Sequence[Sequence[int]], threshold: float = 0.001) -> np.ndarray:
    """Compute the repeat factor of each image from its rarest class.

    Args:
        classes_of_images: classes in each image.
        threshold: classes in a smaller fraction of the images are rare.

    Returns:
        ``(N,)`` float64, the maximum over the classes c in the image of ``max(1, sqrt(threshold / f(c)))``, where
        ``f(c)`` is the fraction of images with c; 1 for an image without objects.

    Raises:
        ValueError: if the threshold is not positive.

    Source: Gupta et al. 2019 (arXiv:1908.03195), appendix B.2.
    """
    if threshold <= 0:
        raise ValueError(f"threshold must be a fraction of the images above 0, got {threshold}")
    class_sets = [set(classes) for classes in classes_of_images]
    image_counts: dict[int, int] = {}
    for classes in class_sets:
        for c in classes:
            image_counts[c] = image_counts.get(c, 0) + 1
    class_factors = {
        c: max(1.0, math.sqrt(threshold / (count / len(class_sets)))) for c, count in image_counts.items()
    }
    return np.array([max((class_factors[c] for c in classes), default=1.0) for classes in class_sets])
