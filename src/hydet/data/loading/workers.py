"""Reading and mapping of images, in worker processes or in the calling one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from hydet.data.datasets.dataset import DetectionDataset
from hydet.data.datasets.record import Record
from hydet.data.datasets.report import Problem
from hydet.data.errors import DataError
from hydet.data.hashing import derive_seed
from hydet.data.loading.batch_packing import PackedBatch, SentBatch, pack_batch, send_batch, unpack_batch
from hydet.data.loading.worker_errors import WorkerFailure, explain_worker_death
from hydet.data.loading.worker_signals import outlive_signals
from hydet.structures import ModelInput

__all__ = [
    "ImageRequest",
    "LoadedBatch",
    "LoadedImage",
    "MappedDataset",
    "Mapper",
    "WorkerSettings",
    "load_batches",
]

# Turns a record and a seed into a model input; the seed is None in evaluation.
Mapper = Callable[[Record, int | None], ModelInput]

_MAX_ATTEMPTS = 10  # unreadable images in a row before training stops: the folder is missing or not mounted
_T = TypeVar("_T")


class ImageRequest(NamedTuple):
    """A request to load an image.

    Args:
        image_index: position in the dataset.
        seed: seed of the augmentation; None in evaluation.
    """

    image_index: int
    seed: int | None


class LoadedImage(NamedTuple):
    """The result of a request.

    Args:
        model_input: input of the model; None in evaluation if the image cannot be read.
        errors: messages of the images that could not be read.
    """

    model_input: ModelInput | None
    errors: tuple[str, ...]


class LoadedBatch(NamedTuple):
    """A batch as a worker process sends it.

    Args:
        images: results of the requests.
        problems: problems of images that the dataset found in this worker since the last batch.
    """

    images: list[LoadedImage]
    problems: list[Problem]


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """Options of the processes that prepare batches.

    Args:
        num_workers: number of processes; 0 prepares batches in the calling process.
        prefetch: batches that each worker prepares ahead.
        pin_memory: put batches into page-locked memory if CUDA is available.

    Raises:
        ValueError: if ``num_workers`` is negative.
    """

    num_workers: int = 0
    prefetch: int = 2
    pin_memory: bool = False

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {self.num_workers}")


class MappedDataset(Dataset[LoadedImage]):
    """Reads and maps images on request.

    An image that cannot be read raises if the dataset's policy is ``"raise"``. With another policy, training replaces
    it by another random image, and evaluation skips it.
    """

    def __init__(self, dataset: DetectionDataset, mapper: Mapper) -> None:
        self.dataset = dataset
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, request: ImageRequest) -> LoadedImage:
        index, seed = request
        errors: list[str] = []
        tried: set[int] = set()
        while True:
            try:
                return LoadedImage(self.mapper(self.dataset[index], seed), tuple(errors))
            except DataError as error:
                if self.dataset.policy == "raise":
                    raise
                errors.append(str(error))
                if seed is None:
                    return LoadedImage(None, tuple(errors))
                if len(errors) == _MAX_ATTEMPTS:
                    raise DataError(
                        f"{errors[0]} ({_MAX_ATTEMPTS} images in a row cannot be read)"
                    ) from error
            tried.add(index)
            # The replacement depends on the seed alone, so it is the same with any number of workers.
            index = derive_seed(seed, len(errors)) % len(self.dataset)
            while index in tried and len(tried) < len(self.dataset):
                index = (index + 1) % len(self.dataset)

    def __getitems__(self, requests: Sequence[ImageRequest]) -> SentBatch[LoadedBatch] | WorkerFailure:
        """Load a batch in a worker process and put it into shared memory.

        An exception is returned instead of raised, because torch would make the traceback of the worker its message.
        """
        try:
            report = self.dataset.report()
            report.start_recording()
            images = [self[request] for request in requests]
            return send_batch(pack_batch(LoadedBatch(images, report.take_recorded())))
        except Exception as error:
            return WorkerFailure.of(error)


# A batch as the main process receives it; in pinned memory it is a packed batch already.
_Received = SentBatch[LoadedBatch] | PackedBatch[LoadedBatch] | WorkerFailure


def load_batches(
    source: MappedDataset, batches: Iterable[Sequence[ImageRequest]], settings: WorkerSettings
) -> Iterator[list[LoadedImage]]:
    """Load batches in order, in worker processes if there are any.

    Args:
        source: dataset and mapper; pickled once per worker where processes are spawned (Windows, macOS).
        batches: requests of each batch, possibly endless. Workers read them ahead.
        settings: number of workers and their options.

    Raises:
        DataError: if an image cannot be read and the dataset's policy is ``"raise"``.
        OSError: if shared memory is full, or a worker process died (``ChildProcessError``). Any other exception of a
            worker is raised as it is.
    """
    pin_memory = settings.pin_memory and torch.cuda.is_available()
    if settings.num_workers == 0:
        for requests in batches:
            batch = [source[request] for request in requests]
            yield unpack_batch(pack_batch(batch).pin_memory()) if pin_memory else batch
        return
    loader: Iterable[_Received] = DataLoader(
        source,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=settings.num_workers,
        prefetch_factor=settings.prefetch,
        collate_fn=_return_unchanged,
        pin_memory=pin_memory,
        # A separate generator: the state of the global one must not depend on the number of workers.
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=outlive_signals,
    )
    report = source.dataset.report()
    with _run_workers(loader) as received:
        while True:
            with explain_worker_death():
                packed = next(received, None)
            if packed is None:
                return
            loaded = _open(packed)
            report.merge(loaded.problems)
            yield loaded.images


# Iterators whose workers run. The garbage collector finalizes the objects of a cycle in any order; if an iterator were
# among them, its queues could close their pipes first, and its own finalizer would write to the closed numbers and
# close them again, although they may belong to other files by then.
_running: set[Iterator[_Received]] = set()


@contextlib.contextmanager
def _run_workers(loader: Iterable[_Received]) -> Iterator[Iterator[_Received]]:
    """Yield the iterator of a ``DataLoader``, and end its workers with the block.

    A traceback keeps the iterator alive after an error, so its workers cannot wait for its last reference to go.
    """
    received = iter(loader)
    _running.add(received)
    try:
        yield received
    finally:
        _running.discard(received)
        received._shutdown_workers()  # type: ignore[attr-defined]  # torch has no public name for this


def _open(received: _Received) -> LoadedBatch:
    """Return the batch of a worker, or raise the exception that it sent."""
    if isinstance(received, WorkerFailure):
        received.throw()
    return unpack_batch(received.receive() if isinstance(received, SentBatch) else received)


def _return_unchanged(batch: _T) -> _T:
    return batch
