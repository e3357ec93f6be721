import pytest
import torch
from torch import nn

from hydet.modeling import MViT
from hydet.modeling.backbones.mvit import block_sizes


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="must increase"):
        MViT(depth=4, last_block_indexes=(2, 1))
    with pytest.raises(ValueError, match="scale9"):
        MViT(out_features=["scale9"])


def test_only_requested_features_are_computed():
    net = MViT(
        img_size=32, embed_dim=8, depth=2, last_block_indexes=(0, 1), adaptive_window_size=4,
        out_features=["scale3"], norm_layer=nn.LayerNorm,
    )  # fmt: skip
    output = net.eval()(torch.randn(1, 3, 40, 56))
    assert {name: tuple(f.shape) for name, f in output.items()} == {"scale3": (1, 16, 5, 7)}
    assert not any(name.startswith("scale2") for name in net.state_dict())


def test_block_sizes_of_mvitv2_tiny():
    """Channels and heads double after the last block of a stage; grid and windows halve one block later."""
    sizes = block_sizes(
        10, (0, 2, 7, 9), embed_dim=96, num_heads=1, kv_stride=4, window_size=56, grid=(56, 56)
    )
    assert [s.dim_out for s in sizes] == [96, 192, 192, 384, 384, 384, 384, 384, 768, 768]
    assert [s.dim for s in sizes] == [96, *(s.dim_out for s in sizes[:-1])]
    assert [s.num_heads for s in sizes] == [s.dim_out // 96 for s in sizes]
    assert [s.stride_q for s in sizes] == [1, 2, 1, 2, 1, 1, 1, 1, 2, 1]
    assert [s.stride_kv for s in sizes] == [4, 2, 4, 1, 1, 1, 1, 2, 1, 1]
    assert [s.window_size for s in sizes] == [56, 56, 0, 28, 14, 14, 14, 0, 14, 0]
    assert [s.grid[0] for s in sizes] == [56, 56, 28, 28, 14, 14, 14, 14, 14, 7]


@pytest.mark.parametrize(
    ("window", "kv_stride", "message"),
    [
        (6, 4, "adaptive_window_size=6 gives block 0 windows of 6 tokens.*stride 4 of keys and values"),
        (7, 1, "adaptive_window_size=7 gives block 1 windows of 7 tokens.*stride 2 of queries"),
    ],
)
def test_windows_that_a_pooling_stride_does_not_divide_raise(window, kv_stride, message):
    with pytest.raises(ValueError, match=message):
        MViT(
            img_size=32, embed_dim=8, depth=3, last_block_indexes=(0, 2), adaptive_window_size=window,
            adaptive_kv_stride=kv_stride, out_features=["scale2", "scale3"],
        )  # fmt: skip
