"""Run a function on two processes that share a process group."""

import multiprocessing as mp
import os
import socket

import pytest

from hydet.distributed import distributed_session


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _work(index, port, task, queue):
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    with distributed_session("cpu"):
        queue.put((index, task()))
        queue.close()
        queue.join_thread()


@pytest.fixture
def on_two_processes():
    """Return a function that runs a task on two processes and returns both results in order of rank."""

    def run(task):
        context = mp.get_context("fork")
        queue, port = context.Queue(), _free_port()
        processes = [context.Process(target=_work, args=(i, port, task, queue)) for i in range(2)]
        for process in processes:
            process.start()
        results = dict(queue.get(timeout=60) for _ in processes)
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
        return [results[0], results[1]]

    return run
