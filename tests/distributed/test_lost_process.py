import multiprocessing as mp
import os
import signal
import socket

import pytest
import torch.distributed as dist

from hydet.distributed import LostProcessError, all_gather, barrier, distributed_session, rank
from hydet.distributed.lost_process import describe_lost_process, explain_lost_process

SECONDS = 4  # long enough for two processes to meet on a busy machine


def stop_second_process(index, port, queue):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2", **address)
    pids = []
    try:
        with distributed_session("cpu", timeout=SECONDS, advice="resume=auto continues"):
            pids = all_gather(os.getpid())
            if rank() == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            barrier()
    except LostProcessError as error:
        queue.put((index, str(error)))
        queue.close()
        queue.join_thread()
    if index == 0:
        os.kill(pids[1], signal.SIGCONT)  # finds that the first process has left


def test_a_process_that_stops_answering_and_one_that_ended():
    context = mp.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = context.Queue()
    processes = [context.Process(target=stop_second_process, args=(i, port, queue)) for i in range(2)]
    for process in processes:
        process.start()
    messages = dict(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert messages == {
        0: "another process of this run did not answer for 4 seconds (distributed_timeout); resume=auto continues",
        1: "another process of this run ended; its output, if any, has the reason; resume=auto continues",
    }


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError(f"{GLOO}pair.cc:553] Connection closed by peer [127.0.0.1]:2"),
            "process of this run ended",
        ),
        (
            RuntimeError(f"{GLOO}unbound_buffer.cc:81] Timed out waiting 5000ms for recv"),
            "answer for 5 seconds",
        ),
        (dist.DistBackendError("Socket Timeout"), "did not answer for 5 seconds"),
        (
            dist.DistStoreError("Timed out after 6 seconds waiting for clients. 1/2 clients joined."),
            "only 1 of 2 processes started within 5 seconds",
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_descriptions(error, expected):
    description = describe_lost_process(error, timeout=5)
    assert description is None if expected is None else expected in description


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^shapes$"), explain_lost_process(timeout=5):
        raise RuntimeError("shapes")


@pytest.mark.parametrize("timeout", [0, -1, True, "10", float("nan"), float("inf"), None])
def test_invalid_timeouts_name_the_setting(timeout):
    with pytest.raises(ValueError, match="distributed_timeout"), distributed_session("cpu", timeout=timeout):
        pass
