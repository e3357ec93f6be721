import pytest
import torch
from torch import nn

from hydet.engine import Callback
from hydet.engine.callbacks import Evaluation, PredictionImages
from hydet.structures import Boxes, Instances


class OneDetection(nn.Module):
    input_format = "BGR"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return {"loss": self.weight * 1.0}

    def inference(self, batch):
        detections = Instances(
            (20, 30),
            pred_boxes=Boxes(torch.tensor([[2.0, 2.0, 15.0, 15.0]])),
            scores=torch.tensor([0.9]),
            pred_classes=torch.tensor([0]),
        )
        return [{"instances": detections} for _ in batch]


class Listener(Callback):
    def __init__(self):
        self.images = []

    def on_image(self, trainer, name, image):
        self.images.append((trainer.step, name, image))


def make_entry(**fields):
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[0] = 200  # the first channel, which is blue
    return {"image": image, "height": 20, "width": 30, **fields}


def run(tiny, folder, entry, **options):
    listener = Listener()
    evaluation = Evaluation(every=2, loader=[[entry] * 3], evaluators=[], num_examples=2)
    callbacks = [evaluation, PredictionImages(**options), listener]
    tiny.build_trainer(folder, model=OneDetection(), max_steps=2, callbacks=callbacks).fit()
    return listener.images


def test_the_grid_is_logged_and_written(tiny, tmp_path):
    instances = Instances((40, 60), gt_boxes=Boxes(torch.zeros(1, 4)), gt_classes=torch.tensor([0]))
    images = run(tiny, tmp_path, make_entry(instances=instances))
    assert [(step, name, image.dtype, image.shape[0]) for step, name, image in images] == [
        (2, "predictions", torch.uint8, 3)
    ]
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")] == ["pictures/step_00000002.png"]


def test_channels_are_shown_in_rgb(tiny, tmp_path):
    ((_, _, grid),) = run(tiny, tmp_path, make_entry(), score_threshold=1.0)
    is_blue = (grid[2] == 200) & (grid[0] == 0)
    assert is_blue.float().mean() > 0.3


def test_fewer_images_than_examples(tiny, tmp_path):
    one_row = run(tiny, tmp_path / "a", make_entry(), num_images=1)[0][2]
    two_rows = run(tiny, tmp_path / "b", make_entry(), num_images=2)[0][2]
    assert one_row.shape[1] < two_rows.shape[1]


@pytest.mark.parametrize("options", [{"score_threshold": 2}, {"num_images": 0}])
def test_invalid_arguments_are_rejected(options):
    with pytest.raises(ValueError):
        PredictionImages(**options)
