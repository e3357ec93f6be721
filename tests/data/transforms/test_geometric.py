import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from hydet.data import RandomHorizontalFlip, RandomVerticalFlip, Resize
from hydet.data.transforms.geometric import GeometricTransform, draw_uniform, image_size_of


def test_hydet_and_torchvision_transforms_can_be_mixed(make_inputs):
    transforms = [RandomHorizontalFlip(p=1.0), v2.ColorJitter(brightness=0.1), v2.Resize((20, 30))]
    outputs = v2.Compose(transforms)(make_inputs())
    assert outputs["image"].shape == (3, 20, 30) and outputs["boxes"].tolist()[1] == [0, 0, 30, 20]


def test_boxes_in_another_format_are_rejected():
    boxes = tv_tensors.BoundingBoxes(torch.ones(1, 4), format="XYWH", canvas_size=(10, 10))
    with pytest.raises(TypeError, match="RandomVerticalFlip: boxes must have the format XYXY"):
        RandomVerticalFlip(p=1.0)({"boxes": boxes})


def test_clamping_mode_of_boxes_is_kept(make_inputs):
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[-5.0, 0, 20, 10]]), format="XYXY", canvas_size=(10, 10), clamping_mode=None
    )
    outputs = Resize(size=(20, 20))({"boxes": boxes})
    assert outputs["boxes"].clamping_mode is None and outputs["boxes"].tolist() == [[-10, 0, 40, 20]]


def test_a_transform_has_to_define_every_kind_of_input():
    class Incomplete(GeometricTransform):
        def move_image(self, image, params):
            return image

    with pytest.raises(TypeError, match="abstract"):
        Incomplete()


def test_image_size_of_each_kind_of_input(make_inputs):
    inputs = make_inputs()
    for value in inputs.values():
        assert image_size_of([value]) == (40, 60)
    assert image_size_of(["text", torch.zeros(3, 5, 7)]) == (5, 7)
    with pytest.raises(TypeError, match="needs an image"):
        image_size_of([torch.zeros(3)])


def test_draw_uniform_stays_in_its_range():
    values = [draw_uniform(2, 3) for _ in range(50)]
    assert 2 <= min(values) < max(values) < 3 and draw_uniform(1.5, 1.5) == 1.5
