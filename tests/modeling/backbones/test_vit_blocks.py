import pytest
import torch
from torch import nn

from hydet.modeling.backbones.vit_blocks import Attention, ConvolutionalResidual, ViTBlock


@torch.no_grad()
def test_attention_without_positions_is_equivariant_to_permutations():
    attention = Attention(dim=8, num_heads=2)
    x = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(attention(x.flip(1, 2)), attention(x).flip(1, 2))


@torch.no_grad()
def test_relative_positions_change_the_output_and_fit_other_grids():
    attention = Attention(dim=8, num_heads=2, use_rel_pos=True, rel_pos_zero_init=False, input_size=(4, 4))
    x = torch.randn(2, 5, 3, 8)
    assert attention(x).shape == x.shape
    assert not torch.allclose(attention(x.flip(1, 2)), attention(x).flip(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads=3 does not divide dim=8"),
        ({"num_heads": 2, "use_rel_pos": True}, "relative positions need input_size"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        Attention(dim=8, **options)


@torch.no_grad()
def test_convolutional_residual_is_initialized_as_identity():
    x = torch.randn(1, 8, 5, 6)
    residual = ConvolutionalResidual(channels=8, bottleneck_channels=4)
    torch.testing.assert_close(residual(x), x)
    nn.init.ones_(residual.norm3.weight)
    assert not torch.allclose(residual(x), x)


@torch.no_grad()
def test_windows_of_a_block_do_not_exchange_information():
    block = ViTBlock(dim=8, num_heads=2, window_size=3).eval()
    x = torch.randn(1, 5, 7, 8)
    changed = x.clone()
    changed[:, 0, 0] += torch.randn(8)
    moved = (block(x) - block(changed)).abs().amax(-1)[0] > 1e-6
    assert moved[:3, :3].all() and not moved[3:].any() and not moved[:, 3:].any()
