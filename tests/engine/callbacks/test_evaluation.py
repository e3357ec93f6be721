import pytest
import torch

from hydet.engine import Callback
from hydet.engine.callbacks import Evaluation


def make_evaluation(tiny, every=1, values=None, **options):
    return Evaluation(every=every, loader=tiny.make_batches(), evaluators=tiny.Metric(values), **options)


def test_evaluation_runs_at_the_interval_and_at_the_end(tiny, tmp_path):
    calls = []

    class Listener(Callback):
        def on_evaluation_end(self, trainer, metrics):
            calls.append((trainer.step, metrics is trainer.metrics, sorted(metrics)))

    callbacks = [make_evaluation(tiny, every=2), Listener()]
    tiny.build_trainer(tmp_path, max_steps=5, callbacks=callbacks).fit()
    assert [step for step, *_ in calls] == [2, 4, 5]
    assert all(same for _, same, _ in calls)
    assert calls[0][2] == ["quality", "val_loss/error", "val_loss/size", "val_loss/total"]


def test_evaluation_does_not_change_the_run(tiny, tmp_path):
    weights = []
    for callbacks in ([], [make_evaluation(tiny)]):
        trainer = tiny.build_trainer(tmp_path, callbacks=callbacks)
        trainer.fit()
        weights.append(trainer.model.head.weight.detach())
    assert torch.equal(*weights)


def test_the_first_images_are_kept_as_examples(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, max_steps=1, callbacks=[make_evaluation(tiny, num_examples=3)])
    trainer.fit()
    names = [example.model_input["file_name"] for example in trainer.examples]
    assert names == ["10000.jpg", "10001.jpg", "10002.jpg"]
    assert all(example.model_output["value"].device.type == "cpu" for example in trainer.examples)


@pytest.mark.parametrize("options", [{"every": -1}, {"every": 1, "num_examples": -1}])
def test_invalid_arguments_are_rejected(options):
    with pytest.raises(ValueError):
        Evaluation(loader=[], evaluators=[], **options)
