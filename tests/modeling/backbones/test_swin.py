import pytest
import torch

from hydet.modeling import SwinTransformer


def test_shifted_blocks_move_information_between_windows():
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


def test_frozen_parts_stay_in_evaluation_mode():
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


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="num_heads needs 2 values"):
        SwinTransformer(depths=(1, 1), num_heads=(1,))
    with pytest.raises(ValueError, match=r"out_indices must lie in \[0, 1\)"):
        SwinTransformer(depths=(1,), num_heads=(1,), out_indices=(1,))
