"""Runs that end early and continue, through the command."""

import pytest
import torch
from safetensors.torch import load_file

from hydet.cli import train

CALLBACKS = """
import os, signal
from hydet.engine import Callback, CallbackPhase

class Killed(BaseException):
    pass

class Terminate(Callback):
    def __init__(self, step):
        self.step = step
    def on_step_end(self, trainer):
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

class Kill(Terminate):
    phase = CallbackPhase.AFTER_CHECKPOINT
    def on_step_start(self, trainer):
        if trainer.step == self.step:
            raise Killed
    def on_step_end(self, trainer):
        pass
"""


@pytest.fixture
def endings(tmp_path, monkeypatch):
    (tmp_path / "run_endings.py").write_text(CALLBACKS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture(scope="session")
def options(shapes_overrides):
    return [
        *shapes_overrides, "model=faster_rcnn_fpn", "schedule=constant", "trainer.max_steps=4",
        "callbacks.checkpoints.every=2", "callbacks.checkpoints.best=null",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def uninterrupted(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert train.main([*options, f"output_dir={folder}"]) == 0
    return weights(folder, 4)


def weights(folder, step):
    return load_file(folder / "checkpoints" / f"step_{step:08d}" / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_two_runs_of_two_steps_equal_one_of_four(options, uninterrupted, tmp_path, command):
    run = [*options, f"output_dir={tmp_path}/run", "resume=auto"]
    command("train", *run, "trainer.max_steps=2")
    command("train", *run)
    assert_same(weights(tmp_path / "run", 4), uninterrupted)


def test_a_terminated_run_continues_exactly(options, uninterrupted, endings, tmp_path, command):
    run = [*options, f"output_dir={tmp_path}/run", "callbacks.checkpoints.every=100"]
    with pytest.raises(SystemExit) as ended:
        train.main([*run, "+callbacks.end={_target_: run_endings.Terminate, step: 1}"])
    assert ended.value.code == 143
    command("train", *run, "resume=auto")
    assert_same(weights(tmp_path / "run", 4), uninterrupted)


def test_a_killed_run_continues_from_its_last_checkpoint(options, uninterrupted, endings, tmp_path, command):
    run = [*options, f"output_dir={tmp_path}/run"]
    with pytest.raises(BaseException) as ended:
        train.main([*run, "+callbacks.end={_target_: run_endings.Kill, step: 3}"])
    assert type(ended.value).__name__ == "Killed"
    (tmp_path / "run" / "checkpoints" / ".step_00000004.tmp").mkdir()  # killed while it wrote
    command("train", *run, "resume=auto")
    assert_same(weights(tmp_path / "run", 4), uninterrupted)
