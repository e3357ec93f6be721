import pytest
import torch

from hydet.data import RandomHorizontalFlip, RandomVerticalFlip


@pytest.mark.parametrize(
    ("flip", "coordinate", "length"), [(RandomHorizontalFlip, 0, 60), (RandomVerticalFlip, 1, 40)]
)
def test_flip_is_its_own_inverse_and_masks_follow_boxes(
    make_inputs, bounds_of_mask, flip, coordinate, length
):
    inputs, transform = make_inputs(), flip(p=1.0)
    once = transform(inputs)
    assert torch.equal(once["image"], inputs["image"].flip(2 - coordinate))
    assert bounds_of_mask(once["masks"][0]) == once["boxes"].tolist()[0]
    assert once["points"][0, coordinate] == length - inputs["points"][0, coordinate]
    assert once["rotated"][0, coordinate] == length - inputs["rotated"][0, coordinate]
    assert once["rotated"][0, 4] == -30
    twice = transform(once)
    for name, value in inputs.items():
        assert torch.equal(twice[name], value), name


@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_probability_zero_changes_nothing(make_inputs, flip):
    inputs = make_inputs()
    outputs = flip(p=0.0)(inputs)
    assert all(torch.equal(outputs[name], value) for name, value in inputs.items())


def test_a_probability_above_one_is_rejected():
    with pytest.raises(ValueError, match="RandomHorizontalFlip: p"):
        RandomHorizontalFlip(p=2)
