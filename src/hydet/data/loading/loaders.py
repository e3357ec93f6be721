"""Loaders: batches of model inputs, from worker processes if asked for, the same whatever their number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hydet.data.errors import DataError
from hydet.data.hashing import hashed
from hydet.data.loading.batch_transport import pack, unpack
from hydet.data.loading.samplers import ShuffleSampler, grouped_batches

__all__ = ["TestLoader", "TrainLoader", "build_test_loader", "build_train_loader"]

Mapper = Callable[..., dict[str, Any]]
Batch = list[dict[str, Any]]
_BROKEN = "_broken"
_ATTEMPTS = 10


class _Mapped(Dataset):  # type: ignore[type-arg]
    """What a worker does for one (index, seed): read, then map.

    Where the dataset's policy is not to raise, another image takes the place of one that cannot be read; without a
    seed, so in evaluation, nothing does.
    """

    def __init__(self, dataset: Any, mapper: Mapper) -> None:
        self.dataset = dataset
        self.mapper = mapper
        self.raises = getattr(dataset, "policy", "raise") == "raise"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int | None]) -> dict[str, Any]:
        index, seed = item
        broken: list[str] = []
        tried: set[int] = set()
        while True:
            try:
                entry = self.mapper(self.dataset[index], seed)
                break
            except DataError as error:
                broken.append(str(error))
                if self.raises:
                    raise
                if seed is None:
                    return {_BROKEN: broken}
                if len(broken) == _ATTEMPTS:
                    raise DataError(f"{broken[0]} ({_ATTEMPTS} images in a row cannot be read)") from error
                tried.add(index)
                index = hashed(seed, len(broken)) % len(self.dataset)
                while index in tried and len(tried) < len(self.dataset):
                    index = (index + 1) % len(self.dataset)
        if broken:
            entry[_BROKEN] = broken
        return entry

    def __getitems__(self, items: Sequence[tuple[int, int | None]]) -> Any:
        """What a worker process sends: a packed batch, or the error, as torch would wrap it in a traceback."""
        try:
            return pack([self[item] for item in items])
        except DataError as error:
            return error


class _Complaints:
    """Counts the images that could not be read; warns and tells the dataset's report of each once."""

    def __init__(self, dataset: Any, *, action: str, consequence: str) -> None:
        self.dataset = dataset
        self.action = action
        self.consequence = consequence
        self.count = 0
        self._told: set[str] = set()

    def take_from(self, entry: dict[str, Any]) -> bool:
        """Whether there are any; they are not left in the entry."""
        broken = entry.pop(_BROKEN, ())
        for message in broken:
            self.count += 1
            if message not in self._told:
                self._told.add(message)
                warnings.warn(f"{message}; {self.consequence}", stacklevel=4)
                report = getattr(self.dataset, "report", None)
                if report is not None:
                    report().add("unreadable_image", message, action=self.action)
        return bool(broken)


class TrainLoader:
    """An endless stream of batches that knows where it is; see :func:`build_train_loader`.

    Iterating over it goes on after the last batch taken; only one iterator may be in use at a time.
    """

    def __init__(
        self,
        dataset: Any,
        mapper: Mapper,
        *,
        sampler: ShuffleSampler,
        batch_size: int,
        num_workers: int,
        aspect_ratio_grouping: bool,
        rank: int,
        world_size: int,
        prefetch: int,
        pin_memory: bool,
    ) -> None:
        self.dataset = dataset
        self.mapper = mapper
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.rank = rank
        self.world_size = world_size
        self.prefetch = prefetch
        self.pin_memory = pin_memory
        self.groups = _orientation(dataset) if aspect_ratio_grouping else None
        self.batches_taken = 0
        self._complaints = _Complaints(
            dataset, action="replaced", consequence="another image takes its place"
        )

    @property
    def replaced(self) -> int:
        """How many images could not be read so far."""
        return self._complaints.count

    def __iter__(self) -> Iterator[Batch]:
        stream = self.sampler.stream(self.rank, self.world_size)
        batches = islice(grouped_batches(stream, self.batch_size, self.groups), self.batches_taken, None)
        source = _Mapped(self.dataset, self.mapper)
        for batch in _loaded(source, batches, self.num_workers, self.prefetch, self.pin_memory):
            for entry in batch:
                self._complaints.take_from(entry)
            self.batches_taken += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """How many batches were handed out, and what that number depends on."""
        return {"batches_taken": self.batches_taken, **self._setting()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; applies to the next iteration.

        If batch size, processes, sampler or dataset have changed since, the loader goes on after as many images, with a
        warning, as it cannot be exact.
        """
        now = self._setting()
        changed = [
            f"{name} {state.get(name)} -> {value}" for name, value in now.items() if state.get(name) != value
        ]
        taken = int(state["batches_taken"])
        if changed:
            images = taken * int(state["batch_size"]) * int(state["world_size"])
            taken = images // (self.batch_size * self.world_size)
            warnings.warn(
                f"the training data differs from that of the checkpoint ({', '.join(changed)}): "
                f"it goes on after as many images, but not exactly",
                stacklevel=2,
            )
        self.batches_taken = taken

    def _setting(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "num_images": len(self.dataset),
            "aspect_ratio_grouping": self.groups is not None,
            **self.sampler.setting(),
        }


class TestLoader:
    """The images of a dataset in order, once an iteration; see :func:`build_test_loader`."""

    __test__ = False  # it is not a test

    def __init__(
        self,
        dataset: Any,
        mapper: Mapper,
        *,
        batch_size: int,
        num_workers: int,
        rank: int,
        world_size: int,
        prefetch: int,
        pin_memory: bool,
    ) -> None:
        self.dataset = dataset
        self.mapper = mapper
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.prefetch = prefetch
        self.pin_memory = pin_memory
        self.indices = range(rank, len(dataset), world_size)
        self._complaints = _Complaints(dataset, action="left out", consequence="nothing is measured on it")

    @property
    def left_out(self) -> int:
        """How many images could not be read so far, in all iterations."""
        return self._complaints.count

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        batches = (
            [(index, None) for index in self.indices[start : start + self.batch_size]]
            for start in range(0, len(self.indices), self.batch_size)
        )
        source = _Mapped(self.dataset, self.mapper)
        workers = min(self.num_workers, len(self))
        for batch in _loaded(source, batches, workers, self.prefetch, self.pin_memory):
            readable = [entry for entry in batch if not self._complaints.take_from(entry)]
            if readable:
                yield readable


def build_train_loader(
    dataset: Any,
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
    """An endless, shuffled stream of batches, each a list of model inputs.

    Which images a batch holds and how they are augmented depends on ``seed`` and its position alone, not on the
    number of workers. ``state_dict`` counts the batches that were taken from it (not those prepared ahead), so a
    loader with that state loaded continues exactly.

    Args:
        dataset: gives records; with ``aspect_ratios`` if they are to be grouped.
        mapper: called as ``mapper(record, seed)``, such as ``InputMapper``.
        batch_size: images in a batch of this process.
        num_workers: processes that prepare batches; 0 prepares them in this one.
        seed: of order and augmentation.
        aspect_ratio_grouping: batches hold only upright or only wide images, which saves padding.
        rank: of this process.
        world_size: number of processes; each gets its own share of every epoch.
        sampler: the order of the images; by default every image once an epoch, shuffled.
        prefetch: batches that each worker prepares ahead.
        pin_memory: put batches into page-locked memory.

    Raises:
        ValueError: if the dataset is empty or numbers are out of range.
        DataError: while iterating, if an image cannot be read and the dataset's ``policy`` is ``"raise"``. With
            another policy a random other image takes its place, with a warning, and ``replaced`` counts it.
    """
    _check(batch_size, num_workers, rank, world_size)
    if sampler is None:
        sampler = ShuffleSampler(size=len(dataset), seed=seed)
    elif sampler.size != len(dataset):
        raise ValueError(f"the sampler is for {sampler.size} images, the dataset has {len(dataset)}")
    return TrainLoader(
        dataset,
        mapper,
        sampler=sampler,
        batch_size=batch_size,
        num_workers=num_workers,
        aspect_ratio_grouping=aspect_ratio_grouping,
        rank=rank,
        world_size=world_size,
        prefetch=prefetch,
        pin_memory=pin_memory,
    )


def build_test_loader(
    dataset: Any,
    mapper: Mapper,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> TestLoader:
    """The images ``rank``, ``rank + world_size``, ... of a dataset, once and in order, in batches of model inputs.

    Args:
        dataset: gives records.
        mapper: called as ``mapper(record, None)``.
        batch_size: images in a batch; the last may have fewer.
        num_workers: processes that prepare batches.
        rank: of this process.
        world_size: number of processes that share the dataset.
        prefetch: batches that each worker prepares ahead.
        pin_memory: put batches into page-locked memory.

    Raises:
        ValueError: if numbers are out of range.
        DataError: while iterating, if an image cannot be read and the dataset's ``policy`` is ``"raise"``. With
            another policy it is left out, with a warning, and ``left_out`` counts it.
    """
    _check(batch_size, num_workers, rank, world_size)
    return TestLoader(
        dataset,
        mapper,
        batch_size=batch_size,
        num_workers=num_workers,
        rank=rank,
        world_size=world_size,
        prefetch=prefetch,
        pin_memory=pin_memory,
    )


def _check(batch_size: int, num_workers: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0 ... world_size - 1, got {rank} of {world_size}")


def _orientation(dataset: Any) -> np.ndarray | None:
    """0 for upright images, 1 for wide ones; None if all are alike."""
    ratios = np.asarray(dataset.aspect_ratios)
    groups = (ratios > 1).astype(np.int8)
    return groups if groups.size and groups.min() != groups.max() else None


def _loaded(
    source: _Mapped,
    batches: Iterable[list[tuple[int, Any]]],
    num_workers: int,
    prefetch: int,
    pin_memory: bool,
) -> Iterator[Batch]:
    """Batches in the order of ``batches``, which is read ahead as far as workers need it."""
    pin_memory = pin_memory and torch.cuda.is_available()
    if num_workers == 0:
        for items in batches:
            batch = [source[item] for item in items]
            yield _pinned(batch) if pin_memory else batch
        return
    loader: Any = DataLoader(
        source,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=num_workers,
        prefetch_factor=prefetch,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        # Of its own: the global stream must not depend on the number of workers.
        generator=torch.Generator().manual_seed(0),
    )
    for packed in loader:
        if isinstance(packed, DataError):
            raise packed
        yield unpack(packed)


def _unchanged(batch: Any) -> Any:
    return batch


def _pinned(batch: Batch) -> Batch:
    stream, block, places = pack(batch)
    return unpack((stream, block.pin_memory(), places))
