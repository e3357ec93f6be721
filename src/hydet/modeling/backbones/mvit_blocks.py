"""Pooling attention and blocks of multiscale vision transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hydet.layers import DropPath

from .positions import decomposed_bias, make_relative_positions
from .transformer_parts import Mlp, as_pair, attend
from .windows import merge_windows, pad_to_multiple, split_windows

__all__ = ["MultiScaleAttention", "MultiScaleBlock"]

# B images, C channels of a head, grids of H x W tokens.


class MultiScaleAttention(nn.Module):
    """Multi-head attention with queries, keys and values pooled by a depthwise convolution that all heads share.

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        num_heads: number of heads; divides ``dim_out``.
        qkv_bias: add a bias to the projections of queries, keys and values.
        norm_layer: makes the normalization layer after each pooling; called with the channels of a head.
        pool_kernel: height and width of the pooling convolutions.
        stride_q: stride of the pooling of queries, which is that of the output.
        stride_kv: stride of the pooling of keys and values.
        residual_pooling: add the pooled queries to the output.
        window_size: side of the windows before pooling; 0 for none.
        use_rel_pos: add a bias that depends on vertical and horizontal distances.
        rel_pos_zero_init: initialize that bias with zero.
        input_size: ``(height, width)`` of the grid that sets the size of the relative position tables; must be square.
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        num_heads: int,
        qkv_bias: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        pool_kernel: Sequence[int] = (3, 3),
        stride_q: int = 1,
        stride_kv: int = 1,
        residual_pooling: bool = True,
        window_size: int = 0,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if dim_out % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide dim_out={dim_out}")
        self.num_heads = num_heads
        head_dim = dim_out // num_heads
        self.scale = head_dim**-0.5
        self.use_rel_pos = use_rel_pos
        self.residual_pooling = residual_pooling
        self.q_window = window_size // stride_q
        self.kv_window = window_size // stride_kv
        if use_rel_pos:
            if input_size is None or input_size[0] != input_size[1]:
                raise ValueError(f"relative positions need a square input_size, got {input_size}")
            side = max(input_size[0] // stride_q, input_size[0] // stride_kv)
            self.rel_pos_h = make_relative_positions(side, head_dim, zero_init=rel_pos_zero_init)
            self.rel_pos_w = make_relative_positions(side, head_dim, zero_init=rel_pos_zero_init)
        self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        for name, stride in (("q", stride_q), ("k", stride_kv), ("v", stride_kv)):
            pool = nn.Conv2d(
                head_dim,
                head_dim,
                as_pair(pool_kernel),
                stride=stride,
                padding=as_pair([side // 2 for side in pool_kernel]),
                groups=head_dim,
                bias=False,
            )
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", norm_layer(head_dim))

    def _pool(self, x: Tensor, name: str) -> Tensor:
        """Map ``(B * heads, H, W, C)`` to ``(B * heads, H / stride, W / stride, C)``, rounded up."""
        x = getattr(self, f"pool_{name}")(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        output: Tensor = getattr(self, f"norm_{name}")(x)
        return output

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, dim)`` to ``(B, H / stride_q, W / stride_q, dim_out)``, rounded up."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        qkv = qkv.permute(3, 0, 4, 1, 2, 5).flatten(1, 2)  # (3, B * heads, H, W, C)
        pooled = q, k, v = tuple(self._pool(part, name) for part, name in zip(qkv.unbind(0), "qkv"))
        unpadded = (q.shape[1], q.shape[2])
        padded = unpadded
        if self.q_window:
            q = pad_to_multiple(q, self.q_window)
            padded = (q.shape[1], q.shape[2])
            q = split_windows(q, self.q_window)
            k, v = (split_windows(pad_to_multiple(part, self.kv_window), self.kv_window) for part in (k, v))
        q_size, k_size = (q.shape[1], q.shape[2]), (k.shape[1], k.shape[2])
        # scaled_dot_product_attention takes four axes. The order of heads and windows does not matter to it.
        heads = (-1, self.num_heads)
        q, k, v = (part.flatten(1, 2).unflatten(0, heads) for part in (q, k, v))
        bias = None
        if self.use_rel_pos:
            bias = decomposed_bias(q, self.rel_pos_h, self.rel_pos_w, q_size, k_size)
        x = attend(q, k, v, scale=self.scale, bias=bias).flatten(0, 1).unflatten(1, q_size)
        if self.q_window:
            x = merge_windows(x, self.q_window, padded, unpadded)
        if self.residual_pooling:
            x = x + pooled[0]
        x = x.unflatten(0, heads).permute(0, 2, 3, 1, 4).flatten(3)  # (B, H, W, dim_out)
        output: Tensor = self.proj(x)
        return output


class MultiScaleBlock(nn.Module):
    """Pooling attention and an MLP, each with a shortcut that matches the size and channels of its output.

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        num_heads: see ``MultiScaleAttention``.
        mlp_ratio: ratio of the hidden channels of the MLP to ``dim_out``.
        qkv_bias: see ``MultiScaleAttention``.
        drop_path: probability of dropping a residual branch, per image.
        norm_layer: makes a normalization layer; called with the number of channels.
        act_layer: makes an activation; called without arguments.
        qkv_pool_kernel: see ``MultiScaleAttention``.
        stride_q: see ``MultiScaleAttention``.
        stride_kv: see ``MultiScaleAttention``.
        residual_pooling: see ``MultiScaleAttention``.
        window_size: see ``MultiScaleAttention``.
        use_rel_pos: see ``MultiScaleAttention``.
        rel_pos_zero_init: see ``MultiScaleAttention``.
        input_size: see ``MultiScaleAttention``.
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        qkv_pool_kernel: Sequence[int] = (3, 3),
        stride_q: int = 1,
        stride_kv: int = 1,
        residual_pooling: bool = True,
        window_size: int = 0,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = MultiScaleAttention(
            dim=dim,
            dim_out=dim_out,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            norm_layer=norm_layer,
            pool_kernel=qkv_pool_kernel,
            stride_q=stride_q,
            stride_kv=stride_kv,
            residual_pooling=residual_pooling,
            window_size=window_size,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=input_size,
        )
        self.drop_path = DropPath(drop_prob=drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim_out)
        self.mlp = Mlp(in_features=dim_out, hidden_features=int(dim_out * mlp_ratio), act_layer=act_layer)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.pool_skip: nn.Module | None = None
        if stride_q > 1:
            kernel = stride_q + 1
            self.pool_skip = nn.MaxPool2d(kernel, stride_q, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, dim)`` to ``(B, H / stride_q, W / stride_q, dim_out)``, rounded up."""
        normalized = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normalized)
        if self.pool_skip is not None:
            x = self.pool_skip(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(normalized))
        output: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return output
