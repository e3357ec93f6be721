import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from hydet.engine import Callback
from hydet.engine.callbacks import Checkpoints, Evaluation, TensorBoardLog


def read_events(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return events


def test_curves_and_images(tiny, tmp_path):
    class DrawEachStep(Callback):
        def on_step_end(self, trainer):
            trainer.log_image("view", torch.zeros(3, 4, 5, dtype=torch.uint8))

    evaluation = Evaluation(every=2, loader=tiny.make_batches(), evaluators=tiny.Metric())
    callbacks = [TensorBoardLog(every=1), evaluation, DrawEachStep()]
    tiny.build_trainer(tmp_path, max_steps=2, callbacks=callbacks).fit()
    events = read_events(tmp_path)
    tags = events.Tags()
    assert {"train/loss/total", "train/lr", "quality", "val_loss/total"} <= set(tags["scalars"])
    assert tags["images"] == ["view"]
    assert [e.step for e in events.Scalars("train/loss/total")] == [1, 2]
    assert [e.step for e in events.Images("view")] == [1, 2]


@pytest.mark.parametrize("seconds", [0, 100, -100])
def test_each_step_has_one_point_after_a_resume(tiny, tmp_path, monkeypatch, seconds):
    """Also if the clock went back, or the parts of the run have the same second and names that sort as 10, 8, 9."""
    now = int(time.time())
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(8))

    def fit(part, max_steps, step=None):
        monkeypatch.setattr(time, "time", lambda: now + part * seconds)
        callbacks = [TensorBoardLog(every=1), Checkpoints(every=1, keep_last=9)]
        trainer = tiny.build_trainer(tmp_path, max_steps=max_steps, callbacks=callbacks)
        trainer.fit(resume=step and tmp_path / "checkpoints" / f"step_{step:08d}")

    fit(0, 3)
    fit(1, 4, step=2)
    fit(2, 5, step=3)
    assert [e.step for e in read_events(tmp_path).Scalars("train/lr")] == [1, 2, 3, 4, 5]
