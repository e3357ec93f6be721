import pytest
import torch
from torchvision import tv_tensors

from hydet.data import FixedSizeCrop, RandomCrop


@pytest.mark.parametrize(
    ("size", "mode", "low", "high"),
    [
        ((0.5, 0.25), "relative", (20, 15), (20, 15)),
        ((0.5, 0.5), "relative_range", (20, 30), (40, 60)),
        ((10, 1000), "absolute", (10, 60), (10, 60)),
        ((10, 50), "absolute_range", (10, 10), (40, 50)),
    ],
)
def test_random_crop_cuts_all_inputs_alike(make_inputs, size, mode, low, high):
    for _ in range(20):
        inputs = make_inputs()
        outputs = RandomCrop(size=size, mode=mode)(inputs)
        height, width = outputs["image"].shape[1:]
        assert low[0] <= height <= high[0] and low[1] <= width <= high[1]
        shift = inputs["boxes"][0, :2] - outputs["boxes"][0, :2]
        left, top = (int(s) for s in shift.tolist())
        for name in ("image", "masks"):
            assert torch.equal(outputs[name], inputs[name][:, top : top + height, left : left + width])
        torch.testing.assert_close(outputs["points"] + shift, inputs["points"])
        torch.testing.assert_close(outputs["rotated"][:, :2] + shift, inputs["rotated"][:, :2])


def test_fixed_size_crop_pads_with_gray_and_ignored_labels(make_inputs):
    outputs = FixedSizeCrop(size=(50, 50))(make_inputs())
    assert outputs["image"].shape == (3, 50, 50) and outputs["masks"].shape == (2, 50, 50)
    assert (outputs["image"][:, 40:] == 128).all()
    assert (outputs["labels"][40:] == 255).all()
    assert not outputs["masks"][:, 40:].any()


def test_fixed_size_crop_draws_one_number_for_both_axes():
    image = tv_tensors.Image(torch.arange(61).view(1, -1, 1) * 1000 + torch.arange(121))
    offsets = set()
    for seed in range(20):
        torch.manual_seed(seed)
        corner = int(FixedSizeCrop(size=(21, 41))(image)[0, 0, 0])
        top, left = divmod(corner, 1000)  # at most 40 and 80
        assert abs(left - 2 * top) <= 1
        offsets.add(top)
    assert len(offsets) > 8


def test_fixed_size_crop_without_padding_keeps_a_smaller_image(make_inputs):
    assert FixedSizeCrop(size=(50, 50), pad=False)(make_inputs())["image"].shape == (3, 40, 50)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomCrop(size=(2, 2)),
        lambda: RandomCrop(size=(0.5, 0.5), mode="square"),
        lambda: RandomCrop(size=(0.5,)),
        lambda: RandomCrop(size=(5, 3), mode="absolute_range"),
        lambda: FixedSizeCrop(size=(0, 5)),
    ],
)
def test_wrong_arguments_are_rejected(make):
    with pytest.raises(ValueError):
        make()
