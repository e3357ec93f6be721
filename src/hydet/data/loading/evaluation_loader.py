"""The evaluation loader: each image of a dataset once, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hydet.data.datasets.dataset import DetectionDataset, RecordSource, as_detection_dataset
from hydet.data.loading.samplers import Shard
from hydet.data.loading.unreadable_images import UnreadableImages
from hydet.data.loading.workers import ImageRequest, MappedDataset, Mapper, WorkerSettings, load_batches
from hydet.structures import ModelInput

__all__ = ["EvaluationLoader", "build_evaluation_loader"]


class EvaluationLoader:
    """Loads the images of a dataset in order, once per iteration; see :func:`build_evaluation_loader`.

    Args:
        dataset: records, and the policy for images that cannot be read.
        mapper: called as ``mapper(record, None)``.
        batch_size: images per batch; the last batch may have fewer.
        shard: part of the dataset that this process loads.
        workers: number of worker processes and their options.

    Raises:
        ValueError: if ``batch_size`` is below 1.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        mapper: Mapper,
        *,
        batch_size: int,
        shard: Shard,
        workers: WorkerSettings,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.dataset = dataset
        self.mapper = mapper
        self.batch_size = batch_size
        # Whole batches are shared out, because the loss of an image can depend on the other images of its batch.
        starts = range(0, len(dataset), batch_size)[shard.rank :: shard.world_size]
        self._batches = [range(start, min(start + batch_size, len(dataset))) for start in starts]
        # A worker without a batch would only be started and stopped.
        self.workers = dataclasses.replace(workers, num_workers=min(workers.num_workers, len(self)))
        self._unreadable = UnreadableImages(dataset, action="skipped", consequence="evaluation skips it")

    @property
    def skipped(self) -> int:
        """Number of images that could not be read so far, in all iterations."""
        return self._unreadable.count

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[ModelInput]]:
        batches = ([ImageRequest(index, None) for index in batch] for batch in self._batches)
        for batch in load_batches(MappedDataset(self.dataset, self.mapper), batches, self.workers):
            model_inputs = []
            for model_input, errors in batch:
                self._unreadable.add(errors)
                if model_input is not None:
                    model_inputs.append(model_input)
            if model_inputs:
                yield model_inputs


def build_evaluation_loader(
    dataset: RecordSource,
    mapper: Mapper,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> EvaluationLoader:
    """Build a loader that yields each image of a dataset once, in order.

    With several processes, each loads the batches ``rank``, ``rank + world_size``, ..., so that the batches are the same
    with any number of processes.

    Args:
        dataset: records; see :class:`hydet.data.DetectionDataset`.
        mapper: called as ``mapper(record, None)``, such as ``InputMapper``.
        batch_size: images per batch; the last batch may have fewer.
        num_workers: processes that prepare batches; 0 prepares them in the calling process.
        rank: rank of this process.
        world_size: number of processes that share the dataset.
        prefetch: batches that each worker prepares ahead.
        pin_memory: put batches into page-locked memory.

    Returns:
        An iterable over lists of model inputs; its length is the number of batches.

    Raises:
        ValueError: if a number is out of range.
        DataError: while iterating, if an image cannot be read and the dataset's ``policy`` is ``"raise"``. With
            another policy the loader skips it, with a warning, and ``skipped`` counts it.
    """
    return EvaluationLoader(
        as_detection_dataset(dataset),
        mapper,
        batch_size=batch_size,
        shard=Shard(rank, world_size),
        workers=WorkerSettings(num_workers, prefetch, pin_memory),
    )
