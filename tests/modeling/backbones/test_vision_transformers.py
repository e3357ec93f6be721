"""ViT, Swin and MViT: positions, windows, sizes that do not divide, errors."""

import pytest
import torch
from torch import nn

from hydet.modeling import MViT, SwinTransformer, ViT, get_vit_lr_decay_rate
from hydet.modeling.backbones.positions import absolute_positions, decomposed_bias, relative_positions
from hydet.modeling.backbones.swin_blocks import shift_mask
from hydet.modeling.backbones.windows import merge_windows, pad_to_multiple, split_windows


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 4), (7, 10, 3), (1, 1, 5), (5, 5, 1)])
def test_windows_come_together_again(height, width, size):
    grid = torch.randn(2, height, width, 3)
    padded = pad_to_multiple(grid, size)
    windows = split_windows(padded, size)
    assert windows.shape[1:] == (size, size, 3)
    merged = merge_windows(windows, size, tuple(padded.shape[1:3]), (height, width))
    torch.testing.assert_close(merged, grid)


def test_windows_go_row_by_row():
    windows = split_windows(torch.arange(16.0).view(1, 4, 4, 1), 2)
    assert windows[:, 0, 0, 0].tolist() == [0, 2, 8, 10]


@pytest.mark.parametrize(("q_size", "k_size"), [(4, 4), (2, 4), (4, 2), (3, 5), (1, 1)])
def test_relative_positions_depend_on_the_distance(q_size, k_size):
    length = 2 * max(q_size, k_size) - 1
    table = torch.arange(float(length))[:, None]
    output = relative_positions(table, q_size, k_size)[..., 0]
    assert output.shape == (q_size, k_size)
    assert output.min() >= 0 and output.max() <= length - 1
    assert (output.diff(dim=0) >= 0).all() and (output.diff(dim=1) <= 0).all()


def test_relative_positions_of_another_length_are_resized():
    table = torch.linspace(0, 1, 7)[:, None]
    torch.testing.assert_close(relative_positions(table, 8, 8)[0, 0, 0], torch.tensor(0.5))
    assert relative_positions(table, 8, 8).shape == (8, 8, 1)


def test_decomposed_bias_against_its_definition():
    torch.manual_seed(0)
    q, table_h, table_w = torch.randn(2, 3, 6, 4), torch.randn(5, 4), torch.randn(7, 4)
    output = decomposed_bias(q, table_h, table_w, (2, 3), (3, 4))
    down, across = relative_positions(table_h, 2, 3), relative_positions(table_w, 3, 4)
    for y, x, v, u in [(0, 0, 0, 0), (1, 2, 2, 3), (0, 1, 2, 0)]:
        want = q[:, :, 3 * y + x] @ (down[y, v] + across[x, u])
        torch.testing.assert_close(output[:, :, 3 * y + x, 4 * v + u], want)


def test_absolute_positions_skip_the_class_token():
    positions = torch.cat([torch.full((1, 1, 2), 9.0), torch.arange(8.0).view(1, 4, 2)], dim=1)
    output = absolute_positions(positions, True, (2, 2))
    torch.testing.assert_close(output, torch.arange(8.0).view(1, 2, 2, 2))
    assert absolute_positions(positions, True, (3, 5)).shape == (1, 3, 5, 2)
    with pytest.raises(ValueError, match="5 position embeddings"):
        absolute_positions(positions, False, (2, 2))


def test_a_window_as_large_as_the_grid_is_no_window():
    torch.manual_seed(0)
    sizes = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "use_rel_pos": True,
    }
    whole = ViT(**sizes, rel_pos_zero_init=False).eval()
    windowed = ViT(**sizes, window_size=4, window_block_indexes=[0]).eval()
    windowed.load_state_dict(whole.state_dict())
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(windowed(images)["last_feat"], whole(images)["last_feat"])


def test_residual_blocks_start_as_the_identity():
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    with_block, without = ViT(**sizes, residual_block_indexes=[0]).eval(), ViT(**sizes).eval()
    without.load_state_dict(with_block.state_dict(), strict=False)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(with_block(images)["last_feat"], without(images)["last_feat"])


def test_vit_errors():
    with pytest.raises(ValueError, match="num_heads=3 does not divide dim=10"):
        ViT(embed_dim=10, num_heads=3, depth=1)
    with pytest.raises(ValueError, match=r"window_block_indexes must lie in \[0, 1\)"):
        ViT(embed_dim=8, num_heads=1, depth=1, window_size=2, window_block_indexes=[1])
    with pytest.raises(ValueError, match="needs window_size > 0"):
        ViT(embed_dim=8, num_heads=1, depth=1, window_block_indexes=[0])


def test_learning_rates_fall_towards_the_image():
    names = ["patch_embed.proj.weight", *(f"blocks.{i}.norm1.bias" for i in range(3))]
    rates = [get_vit_lr_decay_rate(f"backbone.net.{name}", 0.5, 3) for name in names]
    assert rates == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert get_vit_lr_decay_rate("roi_heads.blocks.0.weight", 0.5, 3) == 1.0


def test_shift_mask_separates_what_rolling_brought_together():
    mask = shift_mask(8, 8, 4, device=torch.device("cpu"))
    assert mask.shape == (4, 16, 16)
    assert (mask[0] == 0).all()  # the window in the upper left has no seam
    assert (mask[3] != 0).any() and torch.equal(mask, mask.transpose(1, 2))
    assert (mask.diagonal(dim1=1, dim2=2) == 0).all()


def test_swin_shift_moves_information_between_windows():
    """A change in one corner reaches tokens outside its window only through a shifted block."""
    torch.manual_seed(0)
    options = {"embed_dim": 8, "num_heads": (1,), "window_size": 2, "out_indices": (0,)}
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[..., :4, :4] += torch.randn(3, 4, 4) * 10
    reach = []
    for depths in ((1,), (2,)):
        net = SwinTransformer(depths=depths, **options).eval()
        moved = (net(images)["p0"] - net(changed)["p0"]).abs().amax(1)[0] > 0
        reach.append(moved.nonzero().amax().item())
    assert reach[0] == 1 and 1 < reach[1] < 7


def test_swin_frozen_parts_stay_in_evaluation_mode():
    net = SwinTransformer(
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 1),
        out_indices=(1,),
        ape=True,
        frozen_stages=2,
        drop_rate=0.5,
    )
    net.eval().train()
    assert not net.patch_embed.training and not net.layers[0].training and not net.pos_drop.training
    assert net.layers[1].training and net.norm1.training
    assert not net.absolute_pos_embed.requires_grad
    assert net.size_divisibility == 8


def test_swin_errors():
    with pytest.raises(ValueError, match="num_heads needs 2 values"):
        SwinTransformer(depths=(1, 1), num_heads=(1,))
    with pytest.raises(ValueError, match=r"out_indices must lie in \[0, 1\)"):
        SwinTransformer(depths=(1,), num_heads=(1,), out_indices=(1,))


def test_mvit_errors():
    with pytest.raises(ValueError, match="must increase"):
        MViT(depth=4, last_block_indexes=(2, 1))
    with pytest.raises(ValueError, match="scale9"):
        MViT(out_features=["scale9"])


def test_mvit_returns_requested_features():
    net = MViT(
        img_size=32, embed_dim=8, depth=2, last_block_indexes=(0, 1), adaptive_window_size=4,
        out_features=["scale3"], norm_layer=nn.LayerNorm,
    )  # fmt: skip
    output = net.eval()(torch.randn(1, 3, 40, 56))
    assert {name: tuple(f.shape) for name, f in output.items()} == {"scale3": (1, 16, 5, 7)}
    assert not any(name.startswith("scale2") for name in net.state_dict())
