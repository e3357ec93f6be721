"""Pictures of the training reach whoever logs, as often as asked, from every architecture that draws."""

from functools import partial

import pytest
import torch

from hydet.engine import Trainer
from hydet.engine.callbacks import Callback, ModelPictures, TensorBoardLog
from hydet.modeling.training_pictures import beside_ground_truth

PROPOSALS, DETECTIONS = "Left: ground truth. Right: proposals", "Left: ground truth. Right: detections"
MASKS = "Left: mask prediction. Right: ground truth"
DRAWS = {
    "mask_rcnn_fpn": [PROPOSALS, MASKS],
    "cascade_mask_rcnn_fpn": [PROPOSALS, MASKS],
    "mask_rcnn_c4": [PROPOSALS, MASKS],
    "fast_rcnn_fpn": [PROPOSALS],
    "keypoint_rcnn_fpn": [PROPOSALS],
    "rotated_faster_rcnn_fpn": [PROPOSALS],
    "panoptic_fpn": [PROPOSALS, MASKS],
    "retinanet": [DETECTIONS],
    "fcos": [DETECTIONS],
}


class Listener(Callback):
    def __init__(self):
        self.heard = []

    def on_picture(self, trainer, name, picture):
        assert picture.dtype == torch.uint8 and picture.shape[0] == 3
        self.heard.append((trainer.step, name))


def with_pictures(model, vis_period):
    model.vis_period = vis_period
    for module in model.modules():
        if hasattr(module, "vis_period"):
            module.vis_period = vis_period
    return model


def trainer(architecture, model, folder, callbacks, **options):
    return Trainer(
        model=model,
        train_loader=[architecture.batch()],
        optimizer=partial(torch.optim.SGD, lr=1e-4),
        output_dir=folder,
        callbacks=callbacks,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize("architecture", DRAWS, indirect=True)
def test_pictures_reach_files_and_loggers(architecture, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, listener = with_pictures(architecture.model(), 2), Listener()
    callbacks = [ModelPictures(), TensorBoardLog(every=1), listener]
    trainer(architecture, model, tmp_path, callbacks, max_steps=3).fit()
    names = DRAWS[architecture.name]
    assert sorted(listener.heard) == sorted((2, name) for name in names)
    assert len(list((tmp_path / "pictures/training").glob("step_00000002_*.png"))) == len(names)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert {name: [e.step for e in events.Images(name)] for name in events.Tags()["images"]} == {
        name: [2] for name in names
    }
    assert all(getattr(m, "on_picture", None) is None for m in model.modules())


@pytest.mark.parametrize("architecture", ["retinanet"], indirect=True)
def test_the_period_counts_optimizer_steps(architecture, tmp_path):
    model, listener = with_pictures(architecture.model(), 3), Listener()
    run = trainer(
        architecture, model, tmp_path, [ModelPictures(folder=None), listener], max_steps=4, accumulate=2
    )
    run.fit()
    assert [step for step, _ in listener.heard] == [3]
    assert not (tmp_path / "pictures").exists()
    run.max_steps = 6
    model.training_forwards = 0  # as in another process
    run.fit()
    assert [step for step, _ in listener.heard] == [3, 6]


@pytest.mark.parametrize("architecture", ["mask_rcnn_fpn", "fcos"], indirect=True)
def test_validation_draws_nothing(architecture):
    model, pictures = with_pictures(architecture.model(), 1), []
    for module in model.modules():
        module.on_picture = lambda name, picture: pictures.append(name)
    model.eval().losses_and_inference(architecture.batch())
    assert pictures == []
    model.train().losses_and_inference(architecture.batch())
    assert sorted(pictures) == sorted(DRAWS[architecture.name])


@pytest.mark.parametrize(
    "architecture", ["mask_rcnn_fpn", "retinanet", "rotated_faster_rcnn_fpn"], indirect=True
)
def test_there_may_be_nothing_to_draw(architecture):
    model, pictures = with_pictures(architecture.model(), 1), []
    model.on_picture = lambda name, picture: pictures.append(picture)
    batch = architecture.batch(counts=(0, 0))
    model(architecture.without_proposals(model, batch))
    assert pictures[0].shape == (3, 64, 2 * 96)
    if not architecture.dense:
        image = batch[0]["image"].flip(0)  # these weights expect BGR
        assert torch.equal(pictures[0], torch.cat([image, image], dim=2))


@pytest.mark.parametrize("architecture", ["fast_rcnn_fpn"], indirect=True)
def test_given_proposals_need_no_scores(architecture):
    model, pictures = with_pictures(architecture.model(), 1), []
    model.on_picture = lambda name, picture: pictures.append(picture)
    batch = architecture.batch()
    for entry in batch:
        entry["proposals"].remove("objectness_logits")
    model(batch)
    assert len(pictures) == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels(channels):
    image = torch.arange(channels)[:, None, None].expand(channels, 30, 40) * 10.0
    picture = beside_ground_truth(image, torch.tensor([[5.0, 5, 20, 20]]), torch.zeros(0, 4), bgr=True)
    assert picture.shape == (3, 30, 80) and picture.dtype == torch.uint8
    assert picture[:, 0, 0].tolist() == ([20, 10, 0] if channels >= 3 else [0, 0, 0])
    assert picture[:, 5, 10].tolist() == [0, 255, 0]  # the box
    assert torch.equal(picture[:, :, 40:], picture[:, :1, :1].expand(3, 30, 40))


def test_rotated_boxes_keep_their_angle():
    image = torch.zeros(3, 60, 60)
    upright = beside_ground_truth(image, torch.tensor([[20.0, 20, 40, 30]]), torch.zeros(0, 4))
    for angle, sides in ((0, (20, 10)), (90, (10, 20)), (180, (20, 10))):
        box = torch.tensor([[30.0, 25, *sides, angle]])
        rotated = beside_ground_truth(image, box, torch.zeros(0, 5))
        assert (extent(rotated) - extent(upright)).abs().max() <= 1
    # 45 degrees counter-clockwise: the right end is up
    slanted = (
        beside_ground_truth(image, torch.tensor([[30.0, 30, 40, 4, 45]]), torch.zeros(0, 5))[1, :, :60] > 0
    )
    assert slanted[:25, 35:].any() and slanted[35:, :25].any()
    assert not slanted[:25, :25].any() and not slanted[35:, 35:].any()


def extent(picture):
    """First and last row and column with something green."""
    places = (picture[1, :, :60] > 0).nonzero()
    return torch.cat([places.amin(dim=0), places.amax(dim=0)])
