"""Swin transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .positions import resize_grid
from .swin_blocks import PatchMerging, SwinBlock, SwinPatchEmbed, SwinStage, shift_mask
from .transformer_parts import init_transformer, linear_rates, to_channels_first

__all__ = ["SwinTransformer"]


class SwinTransformer(Backbone):
    """Swin transformer: a hierarchical transformer with attention in shifted windows.

    Feature maps are named ``p0``, ``p1``, ... Images may have any size: patch embedding, windows and patch merging pad
    their inputs.

    Args:
        pretrain_img_size: side of the pretraining images, which sets the number of absolute position embeddings.
        patch_size: side of a patch. As in the reference implementation, ``output_shape`` reports strides for a patch of 4.
        in_chans: channels of the image.
        embed_dim: channels of the first stage, doubled with every stage.
        depths: number of blocks per stage.
        num_heads: number of heads per stage.
        window_size: side of the windows, in tokens.
        mlp_ratio: ratio of the hidden channels of the MLPs to the channels.
        qkv_bias: add a bias to the projections of queries, keys and values.
        qk_scale: factor of the inner products of queries and keys; ``head_dim ** -0.5`` by default.
        drop_rate: dropout probability of tokens and linear layers.
        attn_drop_rate: dropout probability of attention weights.
        drop_path_rate: drop rate of the last block; rates grow linearly from 0 at the first block.
        norm_layer: makes a normalization layer; called with the number of channels.
        ape: add learned absolute position embeddings to the tokens.
        patch_norm: normalize the embedded patches.
        out_indices: indices of the stages whose features are returned.
        frozen_stages: see ``freeze``.
        use_checkpoint: recompute each block in the backward pass instead of storing its activations.

    Raises:
        ValueError: if ``num_heads`` and ``depths`` differ in length, or an index is out of range.

    Source: Liu et al. 2021 (arXiv:2103.14030).
    """

    def __init__(
        self,
        *,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(num_heads) != len(depths):
            raise ValueError(f"num_heads needs {len(depths)} values, one per stage; got {list(num_heads)}")
        if not out_indices or any(not 0 <= i < len(depths) for i in out_indices):
            raise ValueError(f"out_indices must lie in [0, {len(depths)}), got {list(out_indices)}")
        self.use_act_checkpoint = use_checkpoint
        self.window_size = window_size
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.absolute_pos_embed: nn.Parameter | None = None
        if ape:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.patch_embed = SwinPatchEmbed(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            norm_layer=norm_layer if patch_norm else None,
        )
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList()
        for i, (depth, heads) in enumerate(zip(depths, num_heads)):
            dim = embed_dim * 2**i
            blocks = [
                SwinBlock(
                    dim=dim,
                    num_heads=heads,
                    window_size=window_size,
                    shift_size=window_size // 2 if j % 2 else 0,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=next(rates),
                    norm_layer=norm_layer,
                )
                for j in range(depth)
            ]
            last = i == len(depths) - 1
            merging = None if last else PatchMerging(dim=dim, norm_layer=norm_layer)
            self.layers.append(SwinStage(blocks=blocks, downsample=merging))
        for i in self.out_indices:
            self.add_module(f"norm{i}", norm_layer(embed_dim * 2**i))
        self._out_features = [f"p{i}" for i in self.out_indices]
        self._out_feature_channels = {f"p{i}": embed_dim * 2**i for i in self.out_indices}
        self._out_feature_strides = {f"p{i}": 4 * 2**i for i in self.out_indices}
        self._size_divisibility: int = patch_size * 2 ** (len(depths) - 1)
        self.apply(init_transformer)
        self.freeze()

    @property
    def size_divisibility(self) -> int:
        """Stride of the last stage; sizes that it divides need no padding before patch merging."""
        return self._size_divisibility

    def freeze(self) -> Self:
        """Freeze the first stages, with dropout disabled there.

        ``frozen_stages`` >= 0 freezes the patch embedding, >= 1 the absolute positions, and k freezes the stages before
        stage ``k - 1``.

        Returns:
            The network itself.
        """
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad = False
        for part in self._frozen_parts():
            part.eval().requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen modules."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        if self.frozen_stages < 2:
            return [self.patch_embed]
        return [self.patch_embed, self.pos_drop, *self.layers[: self.frozen_stages - 1]]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, in_chans, H, W)`` images of any size.

        Returns:
            ``(N, C_l, H_l, W_l)`` by name, from fine to coarse; each has half the size of the previous one, rounded up.
        """
        x = self.patch_embed(x)  # (B, H, W, C)
        if self.absolute_pos_embed is not None:
            size = (x.shape[1], x.shape[2])
            x = x + resize_grid(self.absolute_pos_embed, size).permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        outputs = {}
        for i, stage in enumerate(self.layers):
            assert isinstance(stage, SwinStage)
            mask = None
            if len(stage.blocks) > 1:
                mask = shift_mask(x.shape[1], x.shape[2], self.window_size, device=x.device)
            for block in stage.blocks:
                x = self._run(block, x, mask)
            if i in self.out_indices:
                outputs[f"p{i}"] = to_channels_first(getattr(self, f"norm{i}")(x))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs
