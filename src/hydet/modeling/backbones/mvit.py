"""Multiscale vision transformers (MViTv2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .backbone import Backbone, check_out_features
from .positions import absolute_positions, decomposed_bias
from .transformer_parts import (
    DropPath,
    Mlp,
    PatchEmbed,
    as_pair,
    attend,
    init_transformer,
    linear_rates,
    to_channels_first,
)
from .windows import merge_windows, pad_to_multiple, split_windows

__all__ = ["MViT"]

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
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)
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
        heads = (
            -1,
            self.num_heads,
        )  # scaled_dot_product_attention takes four axes; the order of heads and windows is free
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
        drop_path: probability of dropping a branch for a sample.
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


class MViT(Backbone):
    """A hierarchical transformer (MViTv2) with pooling attention; feature maps ``scale2``, ``scale3``, ...

    Channels and heads double after the last block of a stage, and the next block halves the resolution.

    Args:
        img_size: side of the images in pixels that sets the size of the relative position tables; other sizes work too.
        patch_kernel: height and width of a patch.
        patch_stride: distance of patches, which is the stride of ``scale2``.
        patch_padding: padding of the image.
        in_chans: channels of the image.
        embed_dim: channels of the first stage.
        depth: number of blocks.
        num_heads: number of heads of the first stage.
        last_block_indexes: index of the last block of each stage.
        qkv_pool_kernel: height and width of the pooling convolutions.
        adaptive_kv_stride: stride of the pooling of keys and values in the first stage, halved with every stage.
        adaptive_window_size: side of the windows in the first stage in tokens, halved with the resolution. The last
            block of each stage except the first attends to the whole grid.
        residual_pooling: add the pooled queries to the output of the attention.
        mlp_ratio: ratio of the hidden channels of the MLPs to the channels.
        qkv_bias: add a bias to the projections of queries, keys and values.
        drop_path_rate: drop rate of the last block; rates grow linearly from 0 at the first block.
        norm_layer: makes a normalization layer; called with the number of channels.
        act_layer: makes an activation; called without arguments.
        use_abs_pos: add learned absolute position embeddings to the tokens.
        use_rel_pos: add relative positions to the attention.
        rel_pos_zero_init: initialize relative positions with zero.
        use_act_checkpoint: recompute each block in the backward pass instead of storing its activations.
        pretrain_img_size: side of the pretraining images, which sets the number of absolute position embeddings.
        pretrain_use_cls_token: True if the absolute position embeddings include a class token, which is skipped.
        out_features: names of the feature maps to return.

    Source: Li et al. 2021 (arXiv:2112.01526).
    """

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_kernel: Sequence[int] = (7, 7),
        patch_stride: Sequence[int] = (4, 4),
        patch_padding: Sequence[int] = (3, 3),
        in_chans: int = 3,
        embed_dim: int = 96,
        depth: int = 16,
        num_heads: int = 1,
        last_block_indexes: Sequence[int] = (0, 2, 11, 15),
        qkv_pool_kernel: Sequence[int] = (3, 3),
        adaptive_kv_stride: int = 4,
        adaptive_window_size: int = 56,
        residual_pooling: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = False,
        use_rel_pos: bool = True,
        rel_pos_zero_init: bool = True,
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_features: Sequence[str] = ("scale2", "scale3", "scale4", "scale5"),
    ) -> None:
        super().__init__()
        last = list(last_block_indexes)
        if last != sorted(set(last)) or not last or not 0 <= last[0] <= last[-1] < depth:
            raise ValueError(f"last_block_indexes must increase within [0, {depth}), got {last}")
        names = [f"scale{i}" for i in range(2, 2 + len(last))]
        check_out_features("MViT", out_features, names)
        self.use_act_checkpoint = use_act_checkpoint
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self._name_of_block = dict(zip(last, names))
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            rows, columns = (pretrain_img_size // stride for stride in patch_stride)
            count = rows * columns + int(pretrain_use_cls_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, count, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.patch_embed = PatchEmbed(
            kernel_size=patch_kernel,
            stride=patch_stride,
            padding=patch_padding,
            in_chans=in_chans,
            embed_dim=embed_dim,
        )
        self.blocks = nn.ModuleList()
        dim = dim_out = embed_dim
        stride, stride_kv, window = patch_stride[0], adaptive_kv_stride, adaptive_window_size
        input_size = (img_size // patch_stride[0], img_size // patch_stride[1])
        channels, strides = {}, {}
        for i, rate in enumerate(linear_rates(drop_path_rate, depth)):
            first_of_stage = i - 1 in last
            attends_to_all = i in last[1:]
            self.blocks.append(
                MultiScaleBlock(
                    dim=dim,
                    dim_out=dim_out,
                    num_heads=num_heads,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop_path=rate,
                    norm_layer=norm_layer,
                    act_layer=act_layer,
                    qkv_pool_kernel=qkv_pool_kernel,
                    stride_q=2 if first_of_stage else 1,
                    # In the second and third stage the whole grid is large, so global attention pools twice as far.
                    stride_kv=stride_kv * 2 if i in last[1:3] else stride_kv,
                    residual_pooling=residual_pooling,
                    window_size=0 if attends_to_all else window,
                    use_rel_pos=use_rel_pos,
                    rel_pos_zero_init=rel_pos_zero_init,
                    input_size=input_size,
                )
            )
            dim = dim_out
            if i in last:
                name = self._name_of_block[i]
                channels[name], strides[name] = dim_out, stride
                dim_out, num_heads, stride = 2 * dim_out, 2 * num_heads, 2 * stride
                stride_kv = max(stride_kv // 2, 1)
            if first_of_stage:
                window //= 2
                input_size = (input_size[0] // 2, input_size[1] // 2)
        for name in names:
            if name in out_features:
                self.add_module(f"{name}_norm", norm_layer(channels[name]))
        self._out_features = list(out_features)
        self._out_feature_channels = {name: channels[name] for name in out_features}
        self._out_feature_strides = {name: strides[name] for name in out_features}
        self.apply(init_transformer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, in_chans, H, W)`` images of any size.

        Returns:
            ``(N, C_l, H / stride, W / stride)`` by name, from fine to coarse.
        """
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            size = (x.shape[1], x.shape[2])
            x = x + absolute_positions(self.pos_embed, self.pretrain_use_cls_token, size)
        outputs = {}
        for i, block in enumerate(self.blocks):
            x = self._run(block, x)
            name = self._name_of_block.get(i, "")
            if name in self._out_features:
                outputs[name] = to_channels_first(getattr(self, f"{name}_norm")(x))
        return outputs
