"""Swin transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .positions import resize_grid
from .transformer_parts import DropPath, Mlp, attend, init_transformer, linear_rates, to_channels_first
from .windows import merge_windows, pad_to_multiple, split_windows

__all__ = ["SwinTransformer"]

# B images, C channels, a grid of H x W tokens, windows of w x w = N tokens, n windows per image.

MASKED = -100.0  # added to the logits of tokens that are adjacent only because the grid was rolled


class SwinPatchEmbed(nn.Module):
    """Embed images as a grid of tokens; images are padded to whole patches.

    Args:
        patch_size: side of a patch.
        in_chans: channels of the image.
        embed_dim: channels of a token.
        norm_layer: makes a normalization layer; called with ``embed_dim``. None for no normalization.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        norm_layer: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_chans, H, W)`` to ``(B, H / patch_size, W / patch_size, embed_dim)``, rounded up."""
        bottom, right = -x.shape[2] % self.patch_size, -x.shape[3] % self.patch_size
        output: Tensor = self.norm(self.proj(F.pad(x, (0, right, 0, bottom))).permute(0, 2, 3, 1))
        return output


class PatchMerging(nn.Module):
    """Merge each 2 x 2 tokens into one with twice the channels.

    Args:
        dim: channels of the input.
        norm_layer: makes a normalization layer; called with ``4 * dim``.
    """

    def __init__(self, *, dim: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, dim)`` to ``(B, H / 2, W / 2, 2 * dim)``, rounded up."""
        x = pad_to_multiple(x, 2)
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # upper left, lower left, upper right, lower right
        output: Tensor = self.reduction(self.norm(x))
        return output


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias per relative position.

    Args:
        dim: number of channels.
        window_size: side of a window, w.
        num_heads: number of heads; divides ``dim``.
        qkv_bias: add a bias to the projections of queries, keys and values.
        qk_scale: multiplies the inner products; by default one over the root of the channels of a head.
        attn_drop: dropout probability of the attention weights.
        proj_drop: dropout probability of the output.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        *,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide dim={dim}")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        span = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(span * span, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute attention between the tokens of each window.

        Args:
            x: ``(B * n, w, w, dim)``.
            mask: ``(n, N, N)``, added to the logits.

        Returns:
            The same shape.
        """
        windows, side, _, channels = x.shape
        qkv = self.qkv(x).view(windows, side * side, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B * n, heads, N, C) each
        bias = self.relative_position_bias_table[self.relative_position_index]  # (N, N, heads)
        bias = bias.permute(2, 0, 1)[None]
        if mask is not None:
            images = windows // mask.shape[0]
            bias = (bias + mask[:, None]).repeat(images, 1, 1, 1)  # (B * n, heads, N, N)
        dropout = self.attn_drop if self.training else 0.0
        x = attend(q, k, v, scale=self.scale, bias=bias, dropout=dropout)
        x = x.transpose(1, 2).reshape(windows, side, side, channels)
        output: Tensor = self.proj_drop(self.proj(x))
        return output


class SwinBlock(nn.Module):
    """Attention within windows, which may be shifted, and an MLP, each with a shortcut.

    Args:
        dim: number of channels.
        num_heads: number of attention heads.
        window_size: side of a window.
        shift_size: shift of the windows in tokens; 0 for none.
        mlp_ratio: ratio of the hidden channels of the MLP to ``dim``.
        qkv_bias: see ``WindowAttention``.
        qk_scale: see ``WindowAttention``.
        drop: dropout probability of linear layers.
        attn_drop: see ``WindowAttention``.
        drop_path: probability of dropping a branch for a sample.
        norm_layer: makes a normalization layer; called with the number of channels.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window_size: int,
        shift_size: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift_size = shift_size
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(
            dim=dim,
            window_size=window_size,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=drop,
        )
        self.drop_path = DropPath(drop_prob=drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(in_features=dim, hidden_features=int(dim * mlp_ratio), drop=drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: ``(B, H, W, dim)``.
            mask: ``(n, N, N)``, from ``shift_mask``; needed if the windows are shifted.

        Returns:
            The same shape.
        """
        size, shift = self.window_size, self.shift_size
        y = pad_to_multiple(self.norm1(x), size)
        padded = (y.shape[1], y.shape[2])
        if shift:
            y = torch.roll(y, (-shift, -shift), dims=(1, 2))
        y = self.attn(split_windows(y, size), mask if shift else None)
        y = merge_windows(y, size, padded, padded)
        if shift:
            y = torch.roll(y, (shift, shift), dims=(1, 2))
        x = x + self.drop_path(y[:, : x.shape[1], : x.shape[2]])
        output: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return output


class SwinStage(nn.Module):
    """The blocks of one resolution, followed by patch merging.

    Args:
        blocks: the blocks; every second block has shifted windows.
        downsample: patch merging, or None for the last stage.
    """

    def __init__(self, *, blocks: Sequence[SwinBlock], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class SwinTransformer(Backbone):
    """A hierarchical transformer with attention in shifted windows; feature maps ``p0``, ``p1``, ...

    Images may have any size: patches, windows and merging pad their inputs.

    Args:
        pretrain_img_size: side of the pretraining images, which sets the number of absolute position embeddings.
        patch_size: side of a patch. ``output_shape`` reports the strides of patches of 4, as the reference does.
        in_chans: channels of the image.
        embed_dim: channels of the first stage, doubled with every stage.
        depths: number of blocks per stage.
        num_heads: number of heads per stage.
        window_size: side of the windows, in tokens.
        mlp_ratio: ratio of the hidden channels of the MLPs to the channels.
        qkv_bias: add a bias to the projections of queries, keys and values.
        qk_scale: multiplies the inner products; by default one over the root of the channels of a head.
        drop_rate: dropout probability of tokens and linear layers.
        attn_drop_rate: dropout probability of attention weights.
        drop_path_rate: drop rate of the last block; rates grow linearly from 0 at the first block.
        norm_layer: makes a normalization layer; called with the number of channels.
        ape: add learned absolute position embeddings to the tokens.
        patch_norm: normalize the embedded patches.
        out_indices: indices of the stages whose features are returned.
        frozen_stages: see ``freeze``.
        use_checkpoint: recompute each block in the backward pass instead of storing its activations.

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
        """Patch size times the factor of all mergings; such sizes need no padding before a merging."""
        return self._size_divisibility

    def freeze(self) -> SwinTransformer:
        """Freeze the first stages, with dropout disabled there.

        ``frozen_stages`` >= 0 freezes the patch embedding, >= 1 the absolute positions, and k freezes the stages before
        stage ``k - 1``.

        Returns:
            The network itself.
        """
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad = False
        for part in self._frozen_parts():
            part.eval()
            for parameter in part.parameters():
                parameter.requires_grad = False
        return self

    def train(self, mode: bool = True) -> SwinTransformer:
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


def relative_position_index(window_size: int) -> Tensor:
    """Return ``(N, N)`` indices into the bias table, in ``[0, (2 w - 1) ** 2)``, for each pair of tokens of a window."""
    axis = torch.arange(window_size)
    rows, columns = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
    vertical = rows[:, None] - rows[None, :] + window_size - 1
    horizontal = columns[:, None] - columns[None, :] + window_size - 1
    return vertical * (2 * window_size - 1) + horizontal


def shift_mask(height: int, width: int, window_size: int, *, device: torch.device) -> Tensor:
    """Return the attention mask that separates tokens from opposite ends of the grid in shifted windows.

    Args:
        height: height of the grid before padding.
        width: width of the grid before padding.
        window_size: side of a window, w; windows are shifted by half of it.
        device: device of the result.

    Returns:
        ``(n, N, N)``: 0, or ``MASKED`` for pairs of tokens that are adjacent only because the grid was rolled.
    """
    shift = window_size // 2

    def regions(length: int) -> Tensor:
        length = length + -length % window_size
        position = torch.arange(length, device=device)
        return (position >= length - window_size).long() + (position >= length - shift).long()

    grid = 3 * regions(height)[:, None] + regions(width)[None, :]
    windows = split_windows(grid[None, :, :, None], window_size).flatten(1)  # (n, N)
    return (windows[:, :, None] != windows[:, None, :]).float() * MASKED
