"""Runs on disks that fill up, in folders that disappear, and with an output that nothing reads."""

import errno
import os
import shutil
import sys
import threading

import pytest

from hydet.engine import Callback, TrainingInterrupted, callbacks, find_last_checkpoint, load_checkpoint
from hydet.engine.callbacks import Checkpoints, JsonlLog, TensorBoardLog
from hydet.engine.output_failures import OutputFailures
from hydet.engine.terminal import Terminal
from hydet.files import WriteError


class At(Callback):
    """Runs a function at the start of a step."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_step_start(self, trainer):
        if trainer.step + 1 == self.step:
            self.function()


class FullDisk(Callback):
    """A log that cannot be written from a step on."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.step >= self.step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.log")


def assert_resumes_exactly(tiny, run, whole):
    rest = tiny.build_trainer(run, callbacks=[Checkpoints(every=2)])
    rest.fit(resume="auto")
    expected = tiny.build_trainer(whole)
    expected.fit()
    for name, value in expected.model.state_dict().items():
        assert value.equal(rest.model.state_dict()[name]), name


def test_a_log_that_cannot_be_written_ends_the_run_after_a_checkpoint(tiny, tmp_path):
    callbacks = [FullDisk(3), Checkpoints(every=100)]
    with pytest.raises(WriteError) as raised:
        tiny.build_trainer(tmp_path / "run", callbacks=callbacks).fit()
    line = str(raised.value)
    assert line.startswith("cannot write a.log: No space left on device")
    assert f"resume=auto output_dir={tmp_path / 'run'} continues from step_00000003" in line
    assert_resumes_exactly(tiny, tmp_path / "run", tmp_path / "whole")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tiny, tmp_path, monkeypatch):
    from hydet.engine import checkpoint_folder

    real_save = checkpoint_folder.save_file

    def full(*args, **kwargs):
        if trainer.step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_save(*args, **kwargs)

    monkeypatch.setattr(checkpoint_folder, "save_file", full)
    trainer = tiny.build_trainer(tmp_path / "run", callbacks=[Checkpoints(every=2, keep_last=1)])
    with pytest.raises(
        WriteError, match=r"cannot write .*step_00000004: No space.* continues from step_00000002"
    ):
        trainer.fit()
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["last", "step_00000002"]
    monkeypatch.undo()
    assert_resumes_exactly(tiny, tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("log", [JsonlLog, TensorBoardLog])
def test_a_limit_of_the_file_size_names_the_log(log, tiny, tmp_path, limit_file_size, capfd):
    pytest.importorskip("tensorboard")
    steps = tiny.build_trainer(tmp_path, max_steps=6, callbacks=[log(every=1), Checkpoints(every=100)])
    name = "metrics.jsonl" if log is JsonlLog else "tensorboard"
    file = tmp_path / name
    before = threading.excepthook
    with pytest.raises(WriteError) as raised, limit_file_size(600):
        steps.fit()
    threading.excepthook = before
    assert str(raised.value).startswith(f"cannot write {file}: File too large")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("change", ["deleted", "renamed"])
def test_a_folder_that_disappears_during_a_run(change, tiny, tmp_path):
    run = tmp_path / "run"

    def disappear():
        if change == "deleted":
            shutil.rmtree(run)
        else:
            run.rename(tmp_path / "other")

    callbacks = [At(4, disappear), JsonlLog(every=1), Checkpoints(every=2)]
    with pytest.raises(WriteError) as raised:
        tiny.build_trainer(run, callbacks=callbacks).fit()
    line = str(raised.value)
    assert f"cannot write {run / 'checkpoints'}: the folder was deleted or renamed" in line
    assert "continues from step_00000004" in line
    if change == "renamed":
        assert find_last_checkpoint(tmp_path / "other").name == "step_00000002"
    assert_resumes_exactly(tiny, run, tmp_path / "whole")


class ClosedPipe:
    """A standard output whose reader has ended."""

    encoding = "utf-8"

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    flush = isatty = lambda self: False


def test_a_run_whose_output_nothing_reads_ends_with_a_checkpoint(tiny, tmp_path, monkeypatch, capsys):
    def close():
        monkeypatch.setattr(sys, "stdout", ClosedPipe())

    log = callbacks.ConsoleLog(every=1)
    with pytest.raises(TrainingInterrupted) as raised:
        tiny.build_trainer(tmp_path / "run", callbacks=[At(3, close), log, Checkpoints(every=100)]).fit()
    assert raised.value.code == 141
    assert load_checkpoint(tmp_path / "run").step == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(
        "standard output was closed; ended after step 3; checkpoint: "
    )
    monkeypatch.undo()
    assert_resumes_exactly(tiny, tmp_path / "run", tmp_path / "whole")


def test_an_output_file_on_a_full_disk_is_named(monkeypatch):
    class Full(ClosedPipe):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(WriteError, match="cannot write standard output: No space"):
        Terminal().print("text")


def test_only_errors_of_writing_are_kept():
    failures = OutputFailures()
    with pytest.raises(FileNotFoundError), failures.collect():
        raise FileNotFoundError(errno.ENOENT, "missing", "photo.jpg")
    failures.raise_on_all_processes()
    for name in ("first", "second"):
        with failures.collect():
            raise WriteError(errno.EIO, "Input/output error", name)
    with pytest.raises(WriteError, match="first"):
        failures.raise_on_all_processes()


def test_both_processes_end_when_the_main_one_cannot_write(tiny, tmp_path, on_two_processes):
    class MainDisk(FullDisk):
        def on_step_end(self, trainer):
            if os.environ["RANK"] == "0":
                super().on_step_end(trainer)

    def task():
        loader = tiny.Loader(rank=int(os.environ["RANK"]), world_size=2)
        trainer = tiny.build_trainer(tmp_path, loader=loader, callbacks=[MainDisk(2), Checkpoints(every=100)])
        try:
            trainer.fit()
        except WriteError as error:
            return str(error)

    lines = on_two_processes(task)
    assert all("step_00000002" in line for line in lines)
    assert load_checkpoint(tmp_path).step == 2
