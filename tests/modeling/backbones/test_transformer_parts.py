import pytest
import torch
from torch import nn

from hydet.modeling.backbones.transformer_parts import (
    Mlp,
    PatchEmbed,
    as_pair,
    attend,
    init_transformer,
    linear_rates,
    to_channels_first,
)


def test_linear_rates_grow_from_zero_to_the_last():
    assert linear_rates(0.4, 5) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert linear_rates(0.4, 1) == [0.0]


def test_patch_embedding_sees_one_patch_per_token():
    embed = PatchEmbed(kernel_size=(4, 4), stride=(4, 4), in_chans=3, embed_dim=8)
    images = torch.zeros(1, 3, 9, 12)  # one row of pixels remains
    changed = images.clone()
    changed[:, :, 5, 9] = 1
    moved = (embed(images) - embed(changed)).abs().amax(-1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 2]] and moved.shape == (2, 3)


def test_mlp_keeps_the_shape_and_drops_in_training_only():
    mlp = Mlp(in_features=4, hidden_features=8, drop=0.5)
    x = torch.randn(2, 3, 4)
    assert mlp(x).shape == x.shape and not torch.equal(mlp(x), mlp(x))
    assert torch.equal(mlp.eval()(x), mlp(x))


@pytest.mark.parametrize("with_bias", [False, True])
def test_attend_equals_its_definition(with_bias):
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)
    bias = torch.randn(2, 3, 5, 6) if with_bias else None
    logits = 0.7 * q @ k.transpose(-1, -2)
    expected = (logits if bias is None else logits + bias).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v, scale=0.7, bias=bias), expected)


def test_attend_converts_the_bias_to_the_type_of_the_queries():
    q = torch.randn(1, 1, 2, 4, dtype=torch.bfloat16)
    assert attend(q, q, q, scale=0.5, bias=torch.zeros(1, 1, 2, 2)).dtype == torch.bfloat16


def test_init_transformer_changes_linear_layers_only():
    net = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64, bias=True), nn.Linear(64, 8, bias=False))
    nn.init.constant_(net[1].bias, 3.0)
    net.apply(init_transformer)
    assert net[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (net[0].bias == 0).all() and (net[1].bias == 3).all()


def test_as_pair_requires_two_values():
    assert as_pair([3, 5]) == (3, 5)
    with pytest.raises(ValueError):
        as_pair([3])


def test_to_channels_first_is_a_view_in_channels_last_format():
    x = torch.randn(2, 3, 4, 5)
    output = to_channels_first(x)
    assert output.shape == (2, 5, 3, 4) and output.data_ptr() == x.data_ptr()
    assert output.is_contiguous(memory_format=torch.channels_last)
