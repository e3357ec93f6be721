import pytest
import torch

from hydet.data import ColorJitter


def test_color_jitter_changes_the_image_alone(make_inputs):
    inputs = make_inputs()
    outputs = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)(inputs)
    assert outputs["image"].dtype == torch.uint8 and not torch.equal(outputs["image"], inputs["image"])
    assert all(torch.equal(outputs[name], inputs[name]) for name in inputs if name != "image")


def test_zero_amounts_and_zero_probability_change_nothing(make_inputs):
    inputs = make_inputs()
    assert torch.equal(ColorJitter()(inputs)["image"], inputs["image"])
    assert torch.equal(ColorJitter(brightness=0.9, p=0.0)(inputs)["image"], inputs["image"])


def test_zero_saturation_is_gray_and_zero_contrast_is_uniform(make_inputs):
    gray = ColorJitter(saturation=(0, 0))(make_inputs())["image"].int()
    assert (gray[0] - gray[1]).abs().max() == 0
    assert ColorJitter(contrast=(0, 0))(make_inputs())["image"].unique().numel() == 1


@pytest.mark.parametrize("arguments", [{"brightness": -1}, {"hue": 0.7}, {"p": 2}, {"contrast": (2, 1)}])
def test_wrong_arguments_are_rejected(arguments):
    with pytest.raises(ValueError, match="ColorJitter"):
        ColorJitter(**arguments)
