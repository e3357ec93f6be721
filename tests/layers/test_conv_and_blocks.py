import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hydet.layers import (
    ASPP,
    CNNBlockBase,
    Conv2d,
    ConvTranspose2d,
    DepthwiseSeparableConv2d,
    DropPath,
    FrozenBatchNorm2d,
    Linear,
    ShapeSpec,
    c2_msra_fill,
    c2_xavier_fill,
    get_norm,
)


def test_conv2d_applies_norm_then_activation():
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=nn.BatchNorm2d(4), activation=F.relu).eval()
    nn.init.normal_(conv.norm.bias)
    x = torch.randn(2, 3, 5, 6)
    plain = F.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(conv(x), conv.norm(plain).relu())
    assert set(conv.state_dict()) >= {"weight", "norm.weight"}


def test_conv2d_without_extras_is_the_plain_one():
    conv = Conv2d(3, 4, 3)
    assert set(conv.state_dict()) == {"weight", "bias"}
    torch.testing.assert_close(conv(torch.ones(1, 3, 5, 5)), nn.Conv2d.forward(conv, torch.ones(1, 3, 5, 5)))


def test_conv2d_refuses_the_name_of_a_norm():
    with pytest.raises(TypeError, match="get_norm"):
        Conv2d(3, 4, 3, norm="BN")


def test_layers_take_an_empty_batch_and_stay_connected():
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    conv = Conv2d(3, 4, 3, stride=2, norm=get_norm("FrozenBN", 4))
    up = ConvTranspose2d(4, 2, kernel_size=2, stride=2)
    linear = Linear(6, 5)
    y = linear(up(conv(x)))
    assert y.shape == (0, 2, 6, 5)
    y.sum().backward()
    for layer in (conv, up, linear):
        assert layer.weight.grad.eq(0).all()


def test_shape_spec_compares_by_value():
    assert ShapeSpec(channels=3, stride=4) == ShapeSpec(channels=3, stride=4) != ShapeSpec(channels=3)


@pytest.mark.parametrize(
    ("fill", "std"),
    [(c2_msra_fill, (2 / (64 * 9)) ** 0.5), (c2_xavier_fill, (1 / (32 * 9)) ** 0.5)],
)
def test_initial_weights_have_the_spread_of_their_paper(fill, std):
    conv = nn.Conv2d(32, 64, 3)
    fill(conv)
    assert conv.weight.std().item() == pytest.approx(std, rel=0.05)
    assert conv.bias.eq(0).all()
    fill(nn.Conv2d(2, 2, 1, bias=False))


class Block(CNNBlockBase):
    def __init__(self):
        super().__init__(in_channels=3, out_channels=4, stride=1)
        self.conv = Conv2d(3, 4, 1, norm=nn.BatchNorm2d(4))
        self.group = nn.GroupNorm(2, 4)


def test_freeze_stops_gradients_and_statistics():
    block = Block()
    assert block.freeze() is block
    assert isinstance(block.conv.norm, FrozenBatchNorm2d) and isinstance(block.group, nn.GroupNorm)
    assert not any(p.requires_grad for p in block.parameters())


def test_depthwise_separable_is_two_convolutions():
    layer = DepthwiseSeparableConv2d(in_channels=4, out_channels=6, kernel_size=5, padding=2, norm2="BN")
    assert layer.depthwise.weight.shape == (4, 1, 5, 5) and layer.depthwise.bias is not None
    assert layer.pointwise.weight.shape == (6, 4, 1, 1) and layer.pointwise.bias is None
    assert layer(torch.randn(2, 4, 7, 9)).shape == (2, 6, 7, 9)


@pytest.mark.parametrize("separable", [False, True])
def test_aspp_keeps_the_size_and_trains_every_weight(separable):
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


def test_aspp_copies_an_activation_that_has_weights():
    layer = ASPP(in_channels=2, out_channels=4, dilations=[1, 2, 3], norm="BN", activation=nn.PReLU())
    assert sum(name.endswith("activation.weight") for name in layer.state_dict()) == 6
    assert layer.convs[0].bias is None and layer.convs[4][1].bias is not None


def test_aspp_says_what_does_not_fit():
    options = {"in_channels": 2, "out_channels": 4, "norm": "", "activation": F.relu}
    with pytest.raises(ValueError, match="3 dilations, got 2"):
        ASPP(dilations=[1, 2], **options)
    with pytest.raises(ValueError, match=r"\(4, 4\) must divide .* \(6, 8\)"):
        ASPP(dilations=[1, 2, 3], pool_kernel_size=(4, 4), **options)(torch.randn(1, 2, 6, 8))


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    drop, x = DropPath(drop_prob=0.25), torch.ones(4000, 3)
    y = drop.train()(x)
    torch.testing.assert_close(y.unique(), torch.tensor([0, 4 / 3]))
    assert (y == y[:, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x
    with pytest.raises(ValueError, match="drop_prob"):
        DropPath(drop_prob=1.5)
