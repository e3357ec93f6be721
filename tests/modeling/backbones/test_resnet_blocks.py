import pytest
import torch

from hydet.modeling import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock, DeformBottleneckBlock])
def test_shortcut_is_a_projection_only_if_the_shape_changes(block):
    """With a stride, equal channels are not enough for an identity shortcut."""
    extra = {} if block is BasicBlock else {"bottleneck_channels": 8}
    made = block(in_channels=8, out_channels=8, stride=2, **extra).eval()
    assert made(torch.randn(1, 8, 9, 12)).shape == (1, 8, 5, 6)
    assert block(in_channels=8, out_channels=8, **extra).shortcut is None


@pytest.mark.parametrize("modulated", [False, True])
def test_offsets_of_deformable_block_receive_gradients(modulated):
    block = DeformBottleneckBlock(
        in_channels=8, out_channels=8, bottleneck_channels=8, norm="BN", deform_modulated=modulated
    )
    block(torch.randn(2, 8, 9, 9)).square().sum().backward()
    assert block.conv2_offset.weight.grad.abs().sum() > 0


def test_stem_divides_the_size_by_four_rounded_up():
    assert BasicStem(out_channels=4)(torch.randn(1, 3, 33, 40)).shape == (1, 4, 9, 10)


@pytest.mark.parametrize(("stride_in_1x1", "strides"), [(True, [(2, 2), (1, 1)]), (False, [(1, 1), (2, 2)])])
@pytest.mark.parametrize("block", [BottleneckBlock, DeformBottleneckBlock])
def test_stride_in_1x1_moves_the_stride(block, stride_in_1x1, strides):
    made = block(in_channels=8, out_channels=8, bottleneck_channels=4, stride=2, stride_in_1x1=stride_in_1x1)
    assert [made.conv1.stride, made.conv2.stride] == strides


def test_dilation_keeps_the_size():
    block = BottleneckBlock(in_channels=8, out_channels=8, bottleneck_channels=4, dilation=3)
    assert block.conv2.dilation == (3, 3)
    assert block(torch.randn(2, 8, 9, 7)).shape == (2, 8, 9, 7)


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_block_starts_without_offsets(modulated):
    """All sampling weights start at 0.5; otherwise the block is a ``BottleneckBlock``."""
    sizes = {"in_channels": 8, "out_channels": 8, "bottleneck_channels": 4, "norm": ""}
    plain = BottleneckBlock(**sizes)
    deformable = DeformBottleneckBlock(**sizes, deform_modulated=modulated)
    deformable.load_state_dict(plain.state_dict(), strict=False)
    if modulated:
        deformable.conv2.weight.data *= 2
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(deformable(x), plain(x), rtol=1e-4, atol=1e-5)
