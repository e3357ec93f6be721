import pytest
import torch

from hydet.modeling.backbones.mvit_blocks import MultiScaleAttention, MultiScaleBlock


@pytest.mark.parametrize("window_size", [0, 4])
@pytest.mark.parametrize(("stride_q", "size"), [(1, (6, 7)), (2, (3, 4))])
def test_block_pools_queries_and_changes_channels(window_size, stride_q, size):
    block = MultiScaleBlock(
        dim=8, dim_out=16, num_heads=2, stride_q=stride_q, stride_kv=2, window_size=window_size,
        use_rel_pos=True, input_size=(8, 8),
    )  # fmt: skip
    assert block(torch.randn(2, 6, 7, 8)).shape == (2, *size, 16)


@torch.no_grad()
def test_windows_do_not_exchange_information():
    """The 3x3 pooling reaches one token across the border of a window."""
    attention = MultiScaleAttention(dim=8, dim_out=8, num_heads=2, window_size=4).eval()
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[:, 0, 0] += 1
    moved = (attention(x) - attention(changed)).abs().amax(-1)[0] > 1e-6
    assert moved[:4, :4].all() and not moved[4:].any() and not moved[:, 4:].any()


@torch.no_grad()
def test_residual_pooling_adds_pooled_queries():
    sizes = {"dim": 4, "dim_out": 4, "num_heads": 1}
    plain = MultiScaleAttention(**sizes, residual_pooling=False)
    residual = MultiScaleAttention(**sizes, residual_pooling=True)
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 5, 4)
    q = plain._pool(plain.qkv(x)[..., :4], "q")
    expected = torch.nn.functional.linear(q, plain.proj.weight)
    torch.testing.assert_close(residual(x) - plain(x), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads=3 does not divide dim_out=8"),
        ({"num_heads": 2, "use_rel_pos": True}, "square input_size, got None"),
        ({"num_heads": 2, "use_rel_pos": True, "input_size": (4, 5)}, r"square input_size, got \(4, 5\)"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleAttention(dim=8, dim_out=8, **options)
