"""Errors of worker processes."""

import pytest

from hydet.data.errors import DataError
from hydet.data.loading.worker_errors import WorkerFailure, describe_worker_death, explain_worker_death


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def failure_of(error):
    try:
        raise error
    except Exception as raised:
        return WorkerFailure.of(raised)


def test_the_error_of_the_worker_is_raised_with_its_own_type_and_message():
    with pytest.raises(DataError, match=r"^a\.jpg: broken$") as raised:
        failure_of(DataError("a.jpg: broken")).throw()
    assert not hasattr(raised.value, "__notes__")


def test_unexpected_errors_carry_the_traceback_of_the_worker():
    with pytest.raises(KeyError) as raised:
        failure_of(KeyError("x")).throw()
    assert (
        "raised in a worker process" in raised.value.__notes__[0]
        and "failure_of" in raised.value.__notes__[0]
    )


def test_an_error_that_cannot_be_sent_is_described():
    with pytest.raises(
        ChildProcessError, match="a worker process that loads images failed: Unpicklable: a b"
    ):
        failure_of(Unpicklable("a", "b")).throw()


def test_a_full_shared_memory_names_the_remedies():
    error = RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")
    with pytest.raises(OSError, match=r"/dev/shm.*--shm-size.*num_workers=0"):
        failure_of(error).throw()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "usually because memory ran out"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible", "--shm-size"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", "stopped by a signal (Segm"),
        ("DataLoader worker (pid 7) exited unexpectedly with exit code 3.", "with exit code 3"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "the worker process 7, 8,"),
    ],
)
def test_the_death_of_a_worker_is_one_line(message, expected):
    line = describe_worker_death(RuntimeError(message))
    assert expected in line and "num_workers=0" in line and "\n" not in line
    with pytest.raises(ChildProcessError), explain_worker_death():
        raise RuntimeError(message)


def test_other_errors_pass_through():
    assert describe_worker_death(RuntimeError("out of memory")) is None
    assert (
        describe_worker_death(ValueError("DataLoader worker (pid 7) is killed by signal: Killed. ")) is None
    )
    with pytest.raises(RuntimeError, match="out of memory"), explain_worker_death():
        raise RuntimeError("out of memory")
