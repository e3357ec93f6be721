import re

import pytest
import torch
from torch import nn

from hydet.engine import Callback
from hydet.engine.callbacks import Checkpoints, TensorBoardLog, TrainingImages

PROPOSALS, DETECTIONS = "Left: ground truth. Right: proposals", "Left: ground truth. Right: detections"
MASKS, LABELS = "Left: mask prediction. Right: ground truth", "Left: true labels. Right: predicted labels"
IMAGES = {
    "mask_rcnn": [PROPOSALS, MASKS],
    "fast_rcnn": [PROPOSALS],
    "rpn": [PROPOSALS],
    "retinanet": [DETECTIONS],
    "semantic": [LABELS],
}


class Listener(Callback):
    def __init__(self):
        self.images = []

    def on_image(self, trainer, name, image):
        self.images.append((trainer.step, name, image))

    @property
    def names(self):
        return sorted((step, name) for step, name, _ in self.images)


def build(tiny, detectors, folder, model, *callbacks, num_objects=2, **options):
    loader = [detectors.batch(num_objects)]
    return tiny.build_trainer(
        folder, model=model, loader=loader, callbacks=callbacks, scheduler=None, **options
    )


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize("kind", IMAGES)
def test_images_reach_loggers_and_files(tiny, detectors, tmp_path, kind):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, listener = detectors.make(kind, vis_period=2), Listener()
    callbacks = [TrainingImages(), TensorBoardLog(every=1), listener]
    build(tiny, detectors, tmp_path, model, *callbacks, max_steps=3).fit()
    assert listener.names == sorted((2, name) for name in IMAGES[kind])
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for *_, image in listener.images)
    expected = sorted(
        f"step_00000002_{re.sub('[^a-z]+', '_', name.lower()).strip('_')}.png" for name in IMAGES[kind]
    )
    assert sorted(p.name for p in (tmp_path / "pictures" / "training").iterdir()) == expected
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    steps = {name: [e.step for e in events.Images(name)] for name in events.Tags()["images"]}
    assert steps == {name: [2] for name in IMAGES[kind]}
    assert hooks_of(model) == []


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("norm", ["", "BN"])
def test_drawing_does_not_change_the_run(tiny, detectors, tmp_path, kind, norm):
    if norm and kind == "rpn":
        pytest.skip("has no norm to choose")
    states = []
    for vis_period in (0, 1):
        trainer = build(
            tiny, detectors, tmp_path, detectors.make(kind, vis_period, norm), TrainingImages(), max_steps=3
        )
        trainer.fit()
        states.append(trainer.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_period_counts_optimizer_steps_over_a_resume(tiny, detectors, tmp_path):
    steps = []
    for max_steps in (4, 6):
        listener = Listener()
        callbacks = [TrainingImages(folder=None), listener, Checkpoints(every=2)]
        model = detectors.make("retinanet", vis_period=3)
        trainer = build(tiny, detectors, tmp_path, model, *callbacks, max_steps=max_steps, accumulate=2)
        with pytest.warns() if max_steps == 6 else torch.enable_grad():
            trainer.fit(resume="auto")
        steps.append([step for step, *_ in listener.images])
    assert steps == [[3], [6]]
    assert not (tmp_path / "pictures").exists()


def test_the_last_batch_of_a_step_is_drawn(tiny, detectors, tmp_path):
    listener, batches = Listener(), [detectors.batch(), detectors.batch()]
    batches[1][0] = {**batches[1][0], "image": torch.zeros(3, 64, 96, dtype=torch.uint8)}
    model = detectors.make("retinanet", vis_period=1)
    trainer = tiny.build_trainer(
        tmp_path,
        model=model,
        loader=batches,
        callbacks=[TrainingImages(), listener],
        max_steps=1,
        accumulate=2,
    )
    trainer.fit()
    ((_, _, image),) = listener.images
    assert image[:, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["mask_rcnn", "fast_rcnn", "retinanet"])
def test_images_without_objects(tiny, detectors, tmp_path, kind):
    listener = Listener()
    model = detectors.make(kind, vis_period=1)
    build(tiny, detectors, tmp_path, model, TrainingImages(), listener, num_objects=0, max_steps=1).fit()
    assert listener.names == [(1, IMAGES[kind][0])]
    assert listener.images[0][2].shape == (3, 64, 2 * 96)


def test_ground_truth_is_drawn_on_the_left_in_rgb(tiny, detectors, tmp_path):
    listener = Listener()
    model = detectors.make("mask_rcnn", vis_period=1)
    build(tiny, detectors, tmp_path, model, TrainingImages(), listener, max_steps=1).fit()
    image = next(image for _, name, image in listener.images if name == PROPOSALS)
    assert image[:, 8, 20].tolist() == [0, 255, 0]  # the upper side of the first box
    source = detectors.batch()[0]["image"].flip(0)  # the model expects BGR
    assert torch.equal(image[:, :5, :5], source[:, :5, :5])


def test_evaluation_draws_nothing(tiny, detectors, tmp_path):
    model, callback = detectors.make("mask_rcnn", vis_period=1), TrainingImages()
    trainer = build(tiny, detectors, tmp_path, model, callback, max_steps=1)
    trainer.fit()
    model.eval().losses_and_inference(detectors.batch())
    assert hooks_of(model) == [] and callback._images == {}


def test_hooks_are_removed_after_an_error(tiny, detectors, tmp_path):
    class Fail(nn.Module):
        def forward(self, *_):
            raise RuntimeError("broken")

    model = detectors.make("retinanet", vis_period=1)
    model.head.bbox_pred = Fail()
    with pytest.raises(RuntimeError, match="broken"):
        build(tiny, detectors, tmp_path, model, TrainingImages(), max_steps=1).fit()
    assert hooks_of(model) == []


def test_other_processes_compute_but_write_nothing(tiny, detectors, tmp_path, monkeypatch):
    from hydet.engine.callbacks import training_images

    monkeypatch.setattr(training_images, "is_main_process", lambda: False)
    listener = Listener()
    model = detectors.make("semantic", vis_period=1)
    build(tiny, detectors, tmp_path, model, TrainingImages(), listener, max_steps=1).fit()
    assert listener.images == [] and not (tmp_path / "pictures").exists()


def test_models_of_other_kinds_are_not_drawn(tiny, tmp_path):
    listener = Listener()
    tiny.build_trainer(tmp_path, callbacks=[TrainingImages(), listener], max_steps=1).fit()
    assert listener.images == []
