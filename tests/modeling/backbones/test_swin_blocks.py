import pytest
import torch
from torch import nn

from hydet.modeling.backbones.swin_blocks import (
    PatchMerging,
    SwinBlock,
    SwinPatchEmbed,
    WindowAttention,
    relative_position_index,
    shift_mask,
)


def test_shift_mask_separates_tokens_from_opposite_ends():
    mask = shift_mask(8, 8, 4, device=torch.device("cpu"))
    assert mask.shape == (4, 16, 16)
    assert (mask[0] == 0).all()  # the window in the upper left has no seam
    assert (mask[3] != 0).any() and torch.equal(mask, mask.transpose(1, 2))
    assert (mask.diagonal(dim1=1, dim2=2) == 0).all()


def test_patch_embedding_pads_images_to_whole_patches():
    embed = SwinPatchEmbed(patch_size=4, in_chans=3, embed_dim=8, norm_layer=nn.LayerNorm)
    assert embed(torch.randn(2, 3, 9, 12)).shape == (2, 3, 3, 8)


@torch.no_grad()
def test_patch_merging_halves_the_grid_and_doubles_the_channels():
    merging = PatchMerging(dim=4, norm_layer=nn.LayerNorm)
    x = torch.randn(1, 5, 6, 4)
    output = merging(x)
    assert output.shape == (1, 3, 3, 8)
    corner = torch.cat([x[0, 0, 0], x[0, 1, 0], x[0, 0, 1], x[0, 1, 1]])
    torch.testing.assert_close(output[0, 0, 0], merging.reduction(merging.norm(corner)))


def test_relative_position_index_depends_on_the_offset_only():
    index = relative_position_index(3).view(3, 3, 3, 3)  # (row, column, row, column)
    assert index.min() == 0 and index.max() == 24 and index.unique().numel() == 25
    assert torch.equal(index[:2, :2, :2, :2], index[1:, 1:, 1:, 1:])


@torch.no_grad()
def test_bias_table_reaches_the_attention_weights():
    """With a large bias for the offset 0, every token attends to itself."""
    attention = WindowAttention(dim=4, window_size=2, num_heads=1)
    attention.relative_position_bias_table[4] = 1000.0
    x = torch.randn(3, 2, 2, 4)
    torch.testing.assert_close(attention(x), attention.proj(attention.qkv(x)[..., 8:]))


@torch.no_grad()
@pytest.mark.parametrize("shift_size", [0, 2])
def test_block_accepts_grids_that_windows_do_not_divide(shift_size):
    block = SwinBlock(dim=4, num_heads=2, window_size=4, shift_size=shift_size)
    mask = shift_mask(5, 7, 4, device=torch.device("cpu"))
    assert block(torch.randn(2, 5, 7, 4), mask).shape == (2, 5, 7, 4)


def test_num_heads_must_divide_dim():
    with pytest.raises(ValueError, match="num_heads=3 does not divide dim=4"):
        WindowAttention(dim=4, window_size=2, num_heads=3)
