import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hydet.layers import ASPP


@pytest.mark.parametrize("separable", [False, True])
def test_output_size_and_gradients(separable):
    layer = ASPP(
        in_channels=4,
        out_channels=8,
        dilations=[1, 2, 3],
        norm="",
        activation=nn.Identity(),
        dropout=0.1,
        use_depthwise_separable_conv=separable,
    )
    y = layer(torch.randn(2, 4, 6, 9))
    assert y.shape == (2, 8, 6, 9)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_activation_with_weights_is_copied():
    layer = ASPP(in_channels=2, out_channels=4, dilations=[1, 2, 3], norm="BN", activation=nn.PReLU())
    assert sum(name.endswith("activation.weight") for name in layer.state_dict()) == 6
    assert layer.convs[0].bias is None and layer.convs[4][1].bias is not None


def test_invalid_arguments_raise():
    options = {"in_channels": 2, "out_channels": 4, "norm": "", "activation": F.relu}
    with pytest.raises(ValueError, match="3 dilations, got 2"):
        ASPP(dilations=[1, 2], **options)
    with pytest.raises(ValueError, match=r"\(4, 4\) must divide .* \(6, 8\)"):
        ASPP(dilations=[1, 2, 3], pool_kernel_size=(4, 4), **options)(torch.randn(1, 2, 6, 8))
