import pytest
import torch

from hydet.modeling import ViT, get_vit_lr_decay_rate


def test_window_as_large_as_the_grid_equals_global_attention():
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


def test_residual_blocks_are_initialized_as_identity():
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    with_block, without = ViT(**sizes, residual_block_indexes=[0]).eval(), ViT(**sizes).eval()
    without.load_state_dict(with_block.state_dict(), strict=False)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(with_block(images)["last_feat"], without(images)["last_feat"])


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="num_heads=3 does not divide dim=10"):
        ViT(embed_dim=10, num_heads=3, depth=1)
    with pytest.raises(ValueError, match=r"window_block_indexes must lie in \[0, 1\)"):
        ViT(embed_dim=8, num_heads=1, depth=1, window_size=2, window_block_indexes=[1])
    with pytest.raises(ValueError, match="needs window_size > 0"):
        ViT(embed_dim=8, num_heads=1, depth=1, window_block_indexes=[0])


def test_learning_rate_decays_from_last_block_to_first():
    names = ["patch_embed.proj.weight", *(f"blocks.{i}.norm1.bias" for i in range(3))]
    rates = [get_vit_lr_decay_rate(f"backbone.net.{name}", 0.5, 3) for name in names]
    assert rates == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert get_vit_lr_decay_rate("roi_heads.blocks.0.weight", 0.5, 3) == 1.0
