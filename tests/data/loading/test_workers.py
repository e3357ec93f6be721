import gc
import multiprocessing
import os
import pickle
import signal
import time

import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from hydet.data import ShapesDataset
from hydet.data.loading import workers
from hydet.data.loading.batch_packing import unpack_batch
from hydet.data.loading.workers import ImageRequest, MappedDataset, WorkerSettings, load_batches


def test_an_image_is_read_and_mapped_with_its_seed(dataset, mapper):
    source = MappedDataset(dataset, mapper)
    loaded = source[ImageRequest(4, 7)]
    assert loaded.errors == () and torch.equal(loaded.model_input["image"], mapper(dataset[4], 7)["image"])
    assert len(source) == len(dataset)


def test_evaluation_has_no_replacement_for_an_unreadable_image(mapper, make_torn_dataset):
    source = MappedDataset(make_torn_dataset(), mapper)
    assert source[ImageRequest(3, None)] == (None, ("three.png: torn",))
    replaced = source[ImageRequest(3, 5)]
    assert replaced.model_input["image_id"] != 4 and replaced.errors == ("three.png: torn",)


def test_spawned_workers_can_receive_the_dataset(dataset, mapper):
    # Windows and macOS start workers by pickling the dataset into a new interpreter.
    source = pickle.loads(pickle.dumps(MappedDataset(dataset, mapper)))
    requests = [ImageRequest(2, 1), ImageRequest(5, 3)]
    (batch,) = load_batches(MappedDataset(dataset, mapper), [requests], WorkerSettings())
    sent = unpack_batch(source.__getitems__(requests).receive())
    for loaded, expected in zip(sent.images, batch, strict=True):
        assert torch.equal(loaded.model_input["image"], expected.model_input["image"])


def test_batches_without_a_gpu_are_not_pinned(dataset, mapper, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = WorkerSettings(pin_memory=True)
    (batch,) = load_batches(MappedDataset(dataset, mapper), [[ImageRequest(0, 0)]], settings)
    assert len(batch) == 1


def test_a_negative_number_of_workers_is_rejected():
    with pytest.raises(ValueError, match="num_workers"):
        WorkerSettings(num_workers=-1)


class Failing:
    """A mapper that raises an error of a type that cannot be pickled, or another one."""

    def __init__(self, error_type):
        self.error_type = error_type

    def __call__(self, record, seed):
        raise self.error_type("a" if self.error_type is Unpicklable else "one line about the image")


class Unpicklable(Exception):
    def __init__(self, name, detail="x"):
        super().__init__(f"{name} and {detail}")
        self.stream = open
        self.lock = lambda: None


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error_type", [ValueError, KeyError, OSError])
def test_an_error_is_the_same_with_and_without_workers(dataset, num_workers, error_type):
    source = MappedDataset(dataset, Failing(error_type))
    settings = WorkerSettings(num_workers=num_workers)
    with pytest.raises(error_type) as caught:
        list(load_batches(source, [[ImageRequest(0, 1)]], settings))
    assert str(caught.value).strip("'") == "one line about the image"
    if num_workers and error_type is not OSError:
        assert "raised in a worker process" in caught.value.__notes__[0]


def test_workers_end_when_the_error_is_raised(dataset):
    """The traceback refers to the iterator, whose workers must not wait for the garbage collector."""
    others = set(multiprocessing.active_children())
    batches = load_batches(
        MappedDataset(dataset, Failing(OSError)), [[ImageRequest(0, 1)]], WorkerSettings(num_workers=2)
    )
    with pytest.raises(OSError) as caught:
        next(batches)
    assert caught.value.__traceback__ is not None
    assert set(multiprocessing.active_children()) <= others


def test_an_abandoned_iterator_is_finalized_before_its_queues(dataset, mapper, monkeypatch):
    """In a cycle, the collector calls finalizers in any order, so torch's iterator must not be part of the cycle."""
    requests = [[ImageRequest(i, 1)] for i in range(4)]
    batches = load_batches(MappedDataset(dataset, mapper), requests, WorkerSettings(num_workers=2))
    others = set(workers._running)
    next(batches)
    (number,) = map(id, workers._running - others)
    cycle = [batches]
    cycle.append(cycle)
    shut_down = []
    shutdown = _MultiProcessingDataLoaderIter._shutdown_workers

    def record(self):
        if id(self) == number:  # the collector may find iterators of other tests
            shut_down.append(gc.is_finalized(self))
        shutdown(self)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_shutdown_workers", record)
    del batches, cycle
    gc.collect()
    assert shut_down[0] is False


def test_an_error_that_cannot_be_pickled_is_described(dataset):
    batches = load_batches(
        MappedDataset(dataset, Failing(Unpicklable)), [[ImageRequest(0, 1)]], WorkerSettings(num_workers=1)
    )
    with pytest.raises(ChildProcessError) as caught:
        list(batches)
    assert str(caught.value) == "a worker process that loads images failed: Unpicklable: a and x"


def test_full_shared_memory_ends_in_one_line(dataset, mapper, monkeypatch):
    def share_memory_(self):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", share_memory_)
    batches = load_batches(
        MappedDataset(dataset, mapper), [[ImageRequest(0, 1)]], WorkerSettings(num_workers=1)
    )
    with pytest.raises(OSError, match=r"^shared memory \(/dev/shm\).*--shm-size=8g, or set num_workers=0$"):
        list(batches)


class Dying:
    """A mapper that ends its process with a signal."""

    def __init__(self, signum):
        self.signum = signum

    def __call__(self, record, seed):
        os.kill(os.getpid(), self.signum)
        time.sleep(10)


@pytest.mark.parametrize(
    ("signum", "message"),
    [(signal.SIGKILL, "was killed.*memory ran out.*num_workers=0"), (signal.SIGBUS, "bus error.*--shm-size")],
)
def test_a_killed_worker_ends_in_one_line(dataset, signum, message):
    batches = load_batches(
        MappedDataset(dataset, Dying(signum)), [[ImageRequest(0, 1)]], WorkerSettings(num_workers=1)
    )
    with pytest.raises(ChildProcessError, match=message) as caught:
        list(batches)
    assert "\n" not in str(caught.value)


class Rescaled(ShapesDataset):
    """Reports a problem of each image that is read."""

    def __getitem__(self, index):
        self.report().add("other_size", f"image {index}", action="labels scaled")
        return super().__getitem__(index)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_problems_found_in_workers_reach_the_report(mapper, num_workers):
    rescaled = Rescaled(num_images=6, image_size=(48, 48), max_image_size=(64, 64))
    requests = [[ImageRequest(i, 1), ImageRequest(i + 1, 1)] for i in (0, 2, 4)]
    list(load_batches(MappedDataset(rescaled, mapper), requests, WorkerSettings(num_workers=num_workers)))
    assert rescaled.report().counts == {("other_size", "labels scaled"): 6}
    assert {problem.message for problem in rescaled.report().problems} == {f"image {i}" for i in range(6)}
