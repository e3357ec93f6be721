"""Plain vision transformers for detection (ViTDet)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .backbone import Backbone
from .positions import absolute_positions, make_absolute_positions
from .transformer_parts import PatchEmbed, init_transformer, linear_rates, to_channels_first
from .vit_blocks import ViTBlock

__all__ = ["ViT", "get_vit_lr_decay_rate"]


class ViT(Backbone):
    """Plain vision transformer (ViTDet) with windowed and global attention, and a single feature map.

    Args:
        img_size: side of a square image in pixels, which sets the size of the relative position tables. The tables are
            resized for images of another size.
        patch_size: side of a patch in pixels, which is the stride of the feature map.
        in_chans: channels of the image.
        embed_dim: channels of a token.
        depth: number of blocks.
        num_heads: number of attention heads per block.
        mlp_ratio: ratio of the hidden channels of the MLPs to ``embed_dim``.
        qkv_bias: add a bias to the projections of queries, keys and values.
        drop_path_rate: drop rate of the last block; rates grow linearly from 0 at the first block.
        norm_layer: makes a normalization layer; called with the number of channels.
        act_layer: makes an activation; called without arguments.
        use_abs_pos: add learned absolute position embeddings to the tokens.
        use_rel_pos: add relative positions to the attention.
        rel_pos_zero_init: initialize relative positions with zero.
        window_size: side of the windows, in patches.
        window_block_indexes: indices of the blocks with windowed attention.
        residual_block_indexes: indices of the blocks that end in a ``ConvolutionalResidual``.
        use_act_checkpoint: recompute each block in the backward pass instead of storing its activations.
        pretrain_img_size: side of the pretraining images, which sets the number of absolute position embeddings.
        pretrain_use_cls_token: True if the absolute position embeddings include a class token, which is skipped.
        out_feature: name of the feature map.

    Raises:
        ValueError: if a block index is out of range, or windowed blocks are requested without ``window_size``.

    Source: Dosovitskiy et al. 2020 (arXiv:2010.11929); Li et al. 2022 (arXiv:2203.16527).
    """

    def __init__(
        self,
        *,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__()
        self.use_act_checkpoint = use_act_checkpoint
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            side = pretrain_img_size // patch_size
            self.pos_embed = make_absolute_positions((side, side), embed_dim, pretrain_use_cls_token)
        self.patch_embed = PatchEmbed(
            kernel_size=(patch_size, patch_size),
            stride=(patch_size, patch_size),
            in_chans=in_chans,
            embed_dim=embed_dim,
        )
        for key, indexes in (("window", window_block_indexes), ("residual", residual_block_indexes)):
            if any(not 0 <= i < depth for i in indexes):
                raise ValueError(f"{key}_block_indexes must lie in [0, {depth}), got {list(indexes)}")
        if window_block_indexes and window_size < 1:
            raise ValueError("window_block_indexes needs window_size > 0")
        self.blocks = nn.ModuleList(
            ViTBlock(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=rate,
                norm_layer=norm_layer,
                act_layer=act_layer,
                use_rel_pos=use_rel_pos,
                rel_pos_zero_init=rel_pos_zero_init,
                window_size=window_size if i in window_block_indexes else 0,
                use_residual_block=i in residual_block_indexes,
                input_size=(img_size // patch_size, img_size // patch_size),
            )
            for i, rate in enumerate(linear_rates(drop_path_rate, depth))
        )
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}
        self.apply(init_transformer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature map.

        Args:
            x: ``(N, in_chans, H, W)`` images of any size; pixels that do not fill a patch are ignored.

        Returns:
            ``(N, embed_dim, H / patch_size, W / patch_size)`` under the name ``out_feature``.
        """
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            size = (x.shape[1], x.shape[2])
            x = x + absolute_positions(self.pos_embed, self.pretrain_use_cls_token, size)
        for block in self.blocks:
            x = self._run(block, x)
        return {self._out_features[0]: to_channels_first(x)}


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Return the factor of a parameter's learning rate, which decays from the last block to the first.

    Args:
        name: name of the parameter in the model. Parameters outside of ``backbone`` have factor 1.
        lr_decay_rate: ratio of the factors of a block and the next block.
        num_layers: number of blocks.

    Returns:
        ``lr_decay_rate ** (num_layers + 1)`` for patch and position embeddings, one power less for each
        following block, and 1 for residual convolutional blocks and all other parameters.

    Source: Bao et al. 2021 (arXiv:2106.08254), appendix.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif ".blocks." in name and ".residual." not in name:
            layer = int(name.partition(".blocks.")[2].partition(".")[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
