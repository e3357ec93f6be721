"""Patch embedding, blocks and patch merging of Swin transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import DropPath

from .transformer_parts import Mlp, attend
from .windows import merge_windows, pad_to_multiple, split_windows

__all__ = ["PatchMerging", "SwinBlock", "SwinPatchEmbed", "SwinStage", "WindowAttention", "shift_mask"]

# B images, C channels, a grid of H x W tokens, windows of w x w = N tokens, n windows per image.

MASKED = -100.0  # added to the logits of tokens that are adjacent only because the grid was rolled


class SwinPatchEmbed(nn.Module):
    """Patch embedding: a grid of tokens from images, which are padded to whole patches.

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
    """Patch merging: each 2 x 2 tokens become one token with twice the channels.

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
        qk_scale: factor of the inner products of queries and keys; ``(dim / num_heads) ** -0.5`` by default.
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
        drop_path: probability of dropping a residual branch, per image.
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
