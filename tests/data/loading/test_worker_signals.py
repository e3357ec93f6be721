import multiprocessing as mp
import os
import signal

import pytest

from hydet.data.loading.worker_signals import outlive_signals
from hydet.data.loading.workers import ImageRequest, MappedDataset, WorkerSettings, load_batches


def receive(signals):
    outlive_signals()
    for signum in signals:
        os.kill(os.getpid(), signum)
    os._exit(7)


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ((signal.SIGINT,) * 3, 7),
        ((signal.SIGINT, signal.SIGTERM, signal.SIGINT), 7),
        ((signal.SIGTERM,) * 2, -signal.SIGTERM),
    ],
)
def test_only_a_second_sigterm_ends_a_worker(signals, status):
    process = mp.get_context("fork").Process(target=receive, args=(signals,))
    process.start()
    process.join(30)
    assert process.exitcode == status


class SignalledMapper:
    """A mapper whose process receives a signal with the first image."""

    def __init__(self, mapper, signum):
        self.mapper, self.signum = mapper, signum

    def __call__(self, record, seed):
        if seed == 0:
            os.kill(os.getpid(), self.signum)
        return self.mapper(record, seed)


def test_batches_arrive_after_a_signal_to_the_whole_run(dataset, mapper):
    source = MappedDataset(dataset, SignalledMapper(mapper, signal.SIGTERM))
    requests = [[ImageRequest(i, i)] for i in range(3)]
    batches = list(load_batches(source, requests, WorkerSettings(num_workers=1)))
    assert [len(batch) for batch in batches] == [1, 1, 1]
