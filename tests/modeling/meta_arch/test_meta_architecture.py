import copy

import pytest
import torch
from torch import nn

from hydet.modeling import Detector, MetaArchitecture


class Stub(MetaArchitecture):
    def compute_losses(self, batched_inputs):
        return {"loss": self.preprocess_image(batched_inputs).tensor.sum()}

    def inference(self, batched_inputs):
        return [{} for _ in batched_inputs]

    def losses_and_inference(self, batched_inputs):
        return self.compute_losses(batched_inputs), self.inference(batched_inputs)


class Padding(nn.Module):
    size_divisibility = 8
    padding_constraints = {}


def make(**settings):
    return Stub(**({"backbone": Padding(), "pixel_mean": [10.0, 20.0], "pixel_std": [2.0, 4.0]} | settings))


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        MetaArchitecture(backbone=Padding(), pixel_mean=[0.0], pixel_std=[1.0])


def test_every_architecture_is_a_detector(architecture):
    model = architecture.model()
    assert isinstance(model, Detector)
    assert model.tasks and model.needs_proposals == architecture.given_proposals
    assert model.input_format in ("RGB", "BGR")


def test_forward_computes_losses_in_training_mode_and_results_in_evaluation_mode():
    model, batch = make(), [{"image": torch.zeros(2, 5, 7)}]
    assert set(model(batch)) == {"loss"}
    assert model.eval()(batch) == [{}]


def test_images_are_normalized_and_padded_with_zeros():
    batch = [{"image": torch.full((2, 5, 7), 12.0)}, {"image": torch.full((2, 9, 3), 20.0)}]
    images = make().preprocess_image(batch)
    assert images.tensor.shape == (2, 2, 16, 8) and images.image_sizes == [(5, 7), (9, 3)]
    torch.testing.assert_close(images[0][:, 0, 0], torch.tensor([1.0, -2.0]))
    assert not images.tensor[0, :, 5:].any() and not images.tensor[1, :, :, 3:].any()


def test_pixel_statistics_are_not_in_the_state_dict():
    assert make().state_dict() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixel_std": [1.0]}, "channels"),
        ({"pixel_std": [1.0, 0.0]}, "positive"),
        ({"vis_period": -1}, "negative"),
        ({"vis_period": 5}, "input_format"),
    ],
)
def test_invalid_arguments_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    "architecture", ["mask_rcnn_fpn", "retinanet", "rotated_faster_rcnn_fpn"], indirect=True
)
@pytest.mark.parametrize("assign", [False, True])
def test_weights_complete_a_model_from_the_meta_device(architecture, assign):
    model = architecture.model()
    empty = copy.deepcopy(model).to("meta")
    if not assign:
        empty.to_empty(device="cpu")
    empty.load_state_dict(model.state_dict(), assign=assign)
    for (name, expected), buffer in zip(model.named_buffers(), empty.buffers(), strict=True):
        if name != "loss_normalizer":
            assert torch.equal(buffer, expected), name


@pytest.mark.parametrize("architecture", ["retinanet"], indirect=True)
@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda image: image.numpy(), r"image is a ndarray; .*from_numpy"),
        (lambda image: "photo.jpg", r"image is a str; .*read_image"),
        (lambda image: image.double(), r"image is float64, the model float32; .*image\.float\(\)"),
    ],
)
def test_images_of_other_types_raise(architecture, convert, message):
    model, batch = architecture.model().eval(), architecture.batch()
    batch[0]["image"] = convert(batch[0]["image"])
    with pytest.raises(TypeError, match=message):
        model.inference(batch)
