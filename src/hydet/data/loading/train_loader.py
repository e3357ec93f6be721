"""The training loader: an endless, shuffled stream of batches that can be resumed exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from hydet.data.datasets.dataset import DetectionDataset, RecordSource, as_detection_dataset
from hydet.data.loading.grouping import group_batches, orientation_groups
from hydet.data.loading.samplers import Shard, ShuffleSampler
from hydet.data.loading.unreadable_images import UnreadableImages
from hydet.data.loading.workers import MappedDataset, Mapper, WorkerSettings, load_batches
from hydet.structures import ModelInput

__all__ = ["TrainLoader", "build_train_loader"]


class TrainLoader:
    """An endless stream of batches that can be resumed; see :func:`build_train_loader`.

    Each iteration continues after the last batch that was taken. Only one iterator may be in use at a time.

    Args:
        dataset: records, and the policy for images that cannot be read.
        mapper: called as ``mapper(record, seed)``.
        sampler: order of the images.
        batch_size: images per batch of this process.
        groups: ``(N,)`` group of each image; a batch holds images of one group. None for no grouping.
        shard: part of the stream that this process loads.
        workers: number of worker processes and their options.

    Raises:
        ValueError: if ``batch_size`` is below 1.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        mapper: Mapper,
        *,
        sampler: ShuffleSampler,
        batch_size: int,
        groups: np.ndarray | None,
        shard: Shard,
        workers: WorkerSettings,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.dataset = dataset
        self.mapper = mapper
        self.sampler = sampler
        self.batch_size = batch_size
        self.groups = groups
        self.shard = shard
        self.workers = workers
        self.batches_taken = 0
        self._unreadable = UnreadableImages(
            dataset, action="replaced", consequence="another image replaces it"
        )

    @property
    def replaced(self) -> int:
        """Number of images that could not be read so far, and were replaced."""
        return self._unreadable.count

    def __iter__(self) -> Iterator[list[ModelInput]]:
        stream = self.sampler.stream(self.shard.rank, self.shard.world_size)
        batches = islice(group_batches(stream, self.batch_size, self.groups), self.batches_taken, None)
        for batch in load_batches(MappedDataset(self.dataset, self.mapper), batches, self.workers):
            model_inputs = []
            for model_input, errors in batch:
                self._unreadable.add(errors)
                assert model_input is not None, "in training another image replaces an unreadable one"
                model_inputs.append(model_input)
            self.batches_taken += 1
            yield model_inputs

    def state_dict(self) -> dict[str, str | float | bool]:
        """Return the number of batches taken, and the settings that it depends on."""
        return {"batches_taken": self.batches_taken, **self._settings()}

    def load_state_dict(self, state: Mapping[str, str | float | bool]) -> None:
        """Continue where ``state`` was saved, from the next iteration on.

        If the batch size, the number of processes, the sampler or the dataset has changed, the loader skips the same
        number of images, and warns that the stream does not continue exactly.
        """
        settings = self._settings()
        changes = [
            f"{name} {state.get(name)} -> {value}"
            for name, value in settings.items()
            if state.get(name) != value
        ]
        batches_taken = int(state["batches_taken"])
        if changes:
            images_taken = batches_taken * int(state["batch_size"]) * int(state["world_size"])
            batches_taken = images_taken // (self.batch_size * self.shard.world_size)
            warnings.warn(
                f"the training data differs from that of the checkpoint ({', '.join(changes)}): "
                "training continues after the same number of images, but not exactly",
                stacklevel=2,
            )
        self.batches_taken = batches_taken

    def _settings(self) -> dict[str, str | float | bool]:
        return {
            "batch_size": self.batch_size,
            "world_size": self.shard.world_size,
            "num_images": len(self.dataset),
            "aspect_ratio_grouping": self.groups is not None,
            **self.sampler.setting(),
        }


def build_train_loader(
    dataset: RecordSource,
    mapper: Mapper,
    *,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    aspect_ratio_grouping: bool = True,
    rank: int = 0,
    world_size: int = 1,
    sampler: ShuffleSampler | None = None,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> TrainLoader:
    """Build an endless, shuffled stream of batches, each a list of model inputs.

    The images of a batch and their augmentation depend on ``seed`` and the position of the batch alone, not on the
    number of workers. ``state_dict`` counts the batches that were taken from the loader, not those that workers
    prepared ahead, so a loader that loads this state continues exactly.

    Args:
        dataset: records; see :class:`hydet.data.DetectionDataset`.
        mapper: called as ``mapper(record, seed)``, such as ``InputMapper``.
        batch_size: images per batch of this process.
        num_workers: processes that prepare batches; 0 prepares them in the calling process.
        seed: seed of order and augmentation.
        aspect_ratio_grouping: fill each batch with only portrait or only landscape images, which saves padding.
        rank: rank of this process.
        world_size: number of processes; each takes its own share of every epoch.
        sampler: order of the images; by default each image once per epoch, shuffled.
        prefetch: batches that each worker prepares ahead.
        pin_memory: put batches into page-locked memory.

    Raises:
        ValueError: if the dataset is empty, the sampler has another size, or a number is out of range.
        DataError: while iterating, if an image cannot be read and the dataset's ``policy`` is ``"raise"``. With
            another policy a random other image replaces it, with a warning, and ``replaced`` counts it.
    """
    dataset = as_detection_dataset(dataset)
    if sampler is None:
        sampler = ShuffleSampler(size=len(dataset), seed=seed)
    elif sampler.size != len(dataset):
        raise ValueError(f"the sampler is for {sampler.size} images, but the dataset has {len(dataset)}")
    return TrainLoader(
        dataset,
        mapper,
        sampler=sampler,
        batch_size=batch_size,
        groups=orientation_groups(dataset.aspect_ratios) if aspect_ratio_grouping else None,
        shard=Shard(rank, world_size),
        workers=WorkerSettings(num_workers, prefetch, pin_memory),
    )
