import pytest
import torch
from torch import nn

from hydet.modeling import inflate_input_weights
from hydet.modeling.backbones.input_inflation import replace_input_convolution


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_sum_over_input_channels_is_preserved(channels):
    torch.manual_seed(0)
    state = {
        "bias": torch.randn(4),
        "stem.weight": torch.randn(4, 3, 5, 5),
        "next.weight": torch.randn(4, 4, 3, 3),
    }
    output = inflate_input_weights(state, channels)
    assert output["stem.weight"].shape == (4, channels, 5, 5)
    torch.testing.assert_close(output["stem.weight"].sum(1), state["stem.weight"].sum(1))
    assert output["next.weight"] is state["next.weight"] and state["stem.weight"].shape[1] == 3


def test_additional_channels_repeat_rgb_weights():
    weight = torch.randn(2, 3, 1, 1)
    output = inflate_input_weights({"w": weight}, 6, key="w")["w"]
    torch.testing.assert_close(output, torch.cat([weight, weight], dim=1) / 2)
    four = inflate_input_weights({"w": weight}, 4)["w"]
    torch.testing.assert_close(four[:, 1:3], weight[:, 1:])
    torch.testing.assert_close(four[:, 0] + four[:, 3], weight[:, 0])


def test_missing_weight_and_zero_channels_raise():
    with pytest.raises(ValueError, match="pass its name as key"):
        inflate_input_weights({"w": torch.zeros(2, 4, 1, 1)}, 4)
    with pytest.raises(ValueError, match="has no weight 'z'"):
        inflate_input_weights({"w": torch.zeros(2, 3, 1, 1)}, 4, key="z")
    with pytest.raises(ValueError, match="at least one channel"):
        inflate_input_weights({"w": torch.zeros(2, 3, 1, 1)}, 0)


@torch.no_grad()
def test_replaced_convolution_treats_equal_channels_like_gray_images():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1)), nn.Conv2d(4, 2, 1))
    gray = torch.randn(1, 1, 8, 8)
    expected = model(gray.expand(-1, 3, -1, -1))
    last = model[1]
    replace_input_convolution(model, 5)
    assert model[0][0].in_channels == 5 and model[1] is last
    torch.testing.assert_close(model(gray.expand(-1, 5, -1, -1)), expected)


def test_replace_input_convolution_keeps_a_convolution_that_fits():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    conv = model[0]
    replace_input_convolution(model, 3)
    assert model[0] is conv
    with pytest.raises(ValueError, match="Linear has no convolution"):
        replace_input_convolution(nn.Linear(3, 3), 4)


def test_replace_input_convolution_refuses_a_grouped_convolution():
    """Each group would see other channels than those it was trained with."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3))
    with pytest.raises(ValueError, match=r"Sequential \(0\) has groups=3.*3 channels.*in_channels=6"):
        replace_input_convolution(model, 6)
    replace_input_convolution(model, 3)
    assert model[0].groups == 3
