"""Attention and blocks of plain vision transformers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from hydet.layers import DropPath, LayerNorm, c2_msra_fill

from .positions import decomposed_bias, make_relative_positions
from .transformer_parts import Mlp, attend
from .windows import merge_windows, pad_to_multiple, split_windows

__all__ = ["Attention", "ConvolutionalResidual", "ViTBlock"]

# B images, C channels of a head, a grid of H x W tokens.


class Attention(nn.Module):
    """Multi-head self-attention over a grid of tokens.

    Args:
        dim: number of channels.
        num_heads: number of heads; divides ``dim``.
        qkv_bias: add a bias to the projections of queries, keys and values.
        use_rel_pos: add a bias that depends on vertical and horizontal distances.
        rel_pos_zero_init: initialize that bias with zero.
        input_size: ``(height, width)`` of the grid that sets the size of the relative position tables.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide dim={dim}")
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            if input_size is None:
                raise ValueError("relative positions need input_size")
            self.rel_pos_h = make_relative_positions(input_size[0], head_dim, zero_init=rel_pos_zero_init)
            self.rel_pos_w = make_relative_positions(input_size[1], head_dim, zero_init=rel_pos_zero_init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, dim)`` to the same shape."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H * W, C) each
        bias = None
        if self.use_rel_pos:
            size = (height, width)
            bias = decomposed_bias(q, self.rel_pos_h, self.rel_pos_w, size, size)
        x = attend(q, k, v, scale=self.scale, bias=bias)
        output: Tensor = self.proj(x.transpose(1, 2).reshape(batch, height, width, channels))
        return output


class ConvolutionalResidual(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; initialized as the identity.

    Args:
        channels: channels of input and output.
        bottleneck_channels: channels of the 3x3 convolution.
        act_layer: makes an activation; called without arguments.

    Source: Li et al. 2022 (arXiv:2203.16527), section 3.
    """

    def __init__(
        self, *, channels: int, bottleneck_channels: int, act_layer: Callable[[], nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, bottleneck_channels, 1, bias=False)
        self.norm1 = LayerNorm(normalized_shape=bottleneck_channels)
        self.act1 = act_layer()
        self.conv2 = nn.Conv2d(bottleneck_channels, bottleneck_channels, 3, padding=1, bias=False)
        self.norm2 = LayerNorm(normalized_shape=bottleneck_channels)
        self.act2 = act_layer()
        self.conv3 = nn.Conv2d(bottleneck_channels, channels, 1, bias=False)
        self.norm3 = LayerNorm(normalized_shape=channels)
        for conv in (self.conv1, self.conv2, self.conv3):
            c2_msra_fill(conv)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        out = self.act1(self.norm1(self.conv1(x)))
        out = self.act2(self.norm2(self.conv2(out)))
        output: Tensor = x + self.norm3(self.conv3(out))
        return output


class ViTBlock(nn.Module):
    """Attention, within windows or global, and an MLP, each with a shortcut.

    Args:
        dim: number of channels.
        num_heads: number of attention heads.
        mlp_ratio: ratio of the hidden channels of the MLP to ``dim``.
        qkv_bias: see ``Attention``.
        drop_path: probability of dropping a residual branch, per image.
        norm_layer: makes a normalization layer; called with the number of channels.
        act_layer: makes an activation; called without arguments.
        use_rel_pos: see ``Attention``.
        rel_pos_zero_init: see ``Attention``.
        window_size: side of the windows, which need not divide the grid; 0 for global attention.
        use_residual_block: add a ``ConvolutionalResidual`` at the end.
        input_size: ``(height, width)`` of the grid for the relative positions of global attention.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        use_residual_block: bool = False,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = norm_layer(dim)
        self.attn = Attention(
            dim=dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=(window_size, window_size) if window_size else input_size,
        )
        self.drop_path = DropPath(drop_prob=drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer)
        self.residual: nn.Module | None = None
        if use_residual_block:
            self.residual = ConvolutionalResidual(
                channels=dim, bottleneck_channels=dim // 2, act_layer=act_layer
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, dim)`` to the same shape."""
        y = self.norm1(x)
        if self.window_size:
            y = pad_to_multiple(y, self.window_size)
            padded = (y.shape[1], y.shape[2])
            y = self.attn(split_windows(y, self.window_size))
            y = merge_windows(y, self.window_size, padded, (x.shape[1], x.shape[2]))
        else:
            y = self.attn(y)
        x = x + self.drop_path(y)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if self.residual is not None:
            x = self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x
