import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def test_each_step_has_one_point_after_a_resume(tiny, tmp_path):
    def build(max_steps, every):
        callbacks = [TensorBoardLog(every=1), Checkpoints(every=every)]
        return tiny.build_trainer(tmp_path, max_steps=max_steps, callbacks=callbacks)

    build(3, 2).fit()
    build(4, 2).fit(resume=tmp_path / "checkpoints" / "step_00000002")
    assert [e.step for e in read_events(tmp_path).Scalars("train/lr")] == [1, 2, 3, 4]
