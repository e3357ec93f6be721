"""Runs that end early and continue, through the command."""

import pytest
import torch
from safetensors.torch import load_file

from hydet.cli import train
from hydet.engine import load_checkpoint

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
def uninterrupted_folder(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert train.main([*options, f"output_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def uninterrupted(uninterrupted_folder):
    return weights(uninterrupted_folder, 4)


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


def test_changed_settings_apply_and_are_named(options, uninterrupted_folder, tmp_path, command):
    """The learning rate of the config is that of 16 images; the runs have two per step."""
    changes = [
        "optimizer.lr=0.08", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.99]", "schedule.warmup_steps=2",
        "schedule.max_warmup_fraction=1.0", "trainer.clip_norm=0.5", "trainer.max_steps=5",
    ]  # fmt: skip
    out = command("train", *options, *changes, f"output_dir={tmp_path}", f"resume={uninterrupted_folder}")
    lines = [line for line in out.splitlines() if line.startswith("resumed with")]
    assert sorted(lines) == [
        "resumed with optimizer.betas: [0.9, 0.999] -> [0.8, 0.99]",
        "resumed with optimizer.lr: 0.002 -> 0.08",
        "resumed with optimizer.weight_decay: 0.05 -> 0.3",
        "resumed with schedule.max_steps: 4 -> 5",
        "resumed with schedule.max_warmup_fraction: 0.1 -> 1.0",
        "resumed with schedule.warmup_steps: 100 -> 2",
        "resumed with trainer.clip_norm: 10.0 -> 0.5",
        "resumed with trainer.max_steps: 4 -> 5",
    ]
    checkpoint = load_checkpoint(tmp_path)
    groups = checkpoint.training_state()["optimizer"]["param_groups"]
    assert {group["lr"] for group in groups} == {0.08 * 2 / 16} and checkpoint.config.optimizer.lr == 0.08
    assert [list(group["betas"]) for group in groups] == [[0.8, 0.99]] * len(groups)
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}


def test_another_optimizer_is_refused(options, uninterrupted_folder, tmp_path, failure):
    line = failure(
        "train", *options, "optimizer=sgd", f"output_dir={tmp_path}", f"resume={uninterrupted_folder}"
    )
    assert "SGD instead of torch.optim.adamw.AdamW" in line
    assert f"init_from={uninterrupted_folder}" in line
    assert not (tmp_path / "checkpoints").exists()
