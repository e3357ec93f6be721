import os
import signal
import threading

import pytest

from hydet.engine import interruption
from hydet.engine.interruption import InterruptionWatch, TrainingInterrupted


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_recorded_and_a_later_one_has_its_usual_effect(signum, monkeypatch):
    received, now = [], [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    previous = signal.signal(signum, lambda *_: received.append(True))
    try:
        with InterruptionWatch() as watch:
            os.kill(os.getpid(), signum)
            assert watch.signum == signum and received == []
            now[0] += 1.5  # torchrun forwards what its process group received
            os.kill(os.getpid(), signum)
            assert received == []
            now[0] += 1.5
            os.kill(os.getpid(), signum)
            assert received == [True]
        os.kill(os.getpid(), signum)
        assert received == [True, True]
    finally:
        signal.signal(signum, previous)


def test_a_new_block_forgets_the_signal_of_the_last_one():
    watch = InterruptionWatch()
    with watch:
        os.kill(os.getpid(), signal.SIGTERM)
    assert watch.signum == signal.SIGTERM
    with watch:
        assert watch.signum is None


def test_other_threads_watch_nothing():
    errors = []

    def work():
        try:
            with InterruptionWatch() as watch:
                errors.append(watch.signum)
        except ValueError as error:  # signal.signal raises it outside the main thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == [None]


def test_systems_without_some_of_the_signals(monkeypatch):
    monkeypatch.delattr(signal, "SIGTERM")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)  # Ctrl-Break, on Windows only
    with InterruptionWatch() as watch:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert watch.signum == signal.SIGUSR1
    assert "SIGBREAK" in interruption._NAMES


def test_exit_status_and_message():
    error = TrainingInterrupted(signal.SIGTERM, 7)
    assert error.code == 143 and str(error) == "interrupted by SIGTERM after step 7"
