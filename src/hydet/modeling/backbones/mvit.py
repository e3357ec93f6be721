"""Multiscale vision transformers (MViTv2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .backbone import Backbone, check_out_features
from .mvit_blocks import MultiScaleBlock
from .positions import absolute_positions, make_absolute_positions
from .transformer_parts import PatchEmbed, init_transformer, linear_rates, to_channels_first

__all__ = ["MViT"]


class MViT(Backbone):
    """Multiscale vision transformer (MViTv2): a hierarchical transformer with pooling attention.

    Feature maps are named ``scale2``, ``scale3``, ... Channels and heads double after the last block of a stage, and the
    next block halves the resolution.

    Args:
        img_size: side of a square image in pixels, which sets the size of the relative position tables. The tables are
            resized for images of another size.
        patch_kernel: height and width of a patch.
        patch_stride: vertical and horizontal stride of the patches, which is the stride of ``scale2``.
        patch_padding: vertical and horizontal padding of the image.
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

    Raises:
        ValueError: if ``last_block_indexes`` do not increase within ``depth``, ``out_features`` has unknown names, or
            a pooling stride does not divide the windows of its block.

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
            grid = (pretrain_img_size // patch_stride[0], pretrain_img_size // patch_stride[1])
            self.pos_embed = make_absolute_positions(grid, embed_dim, pretrain_use_cls_token)
        self.patch_embed = PatchEmbed(
            kernel_size=patch_kernel,
            stride=patch_stride,
            padding=patch_padding,
            in_chans=in_chans,
            embed_dim=embed_dim,
        )
        sizes_of_blocks = block_sizes(
            depth,
            last,
            embed_dim=embed_dim,
            num_heads=num_heads,
            kv_stride=adaptive_kv_stride,
            window_size=adaptive_window_size,
            grid=(img_size // patch_stride[0], img_size // patch_stride[1]),
        )
        _check_windows(sizes_of_blocks, adaptive_window_size)
        self.blocks = nn.ModuleList(
            MultiScaleBlock(
                dim=sizes.dim,
                dim_out=sizes.dim_out,
                num_heads=sizes.num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=rate,
                norm_layer=norm_layer,
                act_layer=act_layer,
                qkv_pool_kernel=qkv_pool_kernel,
                stride_q=sizes.stride_q,
                stride_kv=sizes.stride_kv,
                residual_pooling=residual_pooling,
                window_size=sizes.window_size,
                use_rel_pos=use_rel_pos,
                rel_pos_zero_init=rel_pos_zero_init,
                input_size=sizes.grid,
            )
            for sizes, rate in zip(sizes_of_blocks, linear_rates(drop_path_rate, depth))
        )
        channels = {name: embed_dim << stage for stage, name in enumerate(names)}
        strides = {name: patch_stride[0] << stage for stage, name in enumerate(names)}
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


class BlockSizes(NamedTuple):
    """Sizes of a ``MultiScaleBlock``; ``grid`` is the ``(height, width)`` of its input in tokens."""

    dim: int
    dim_out: int
    num_heads: int
    stride_q: int
    stride_kv: int
    window_size: int
    grid: tuple[int, int]


def block_sizes(
    depth: int,
    last_block_indexes: Sequence[int],
    *,
    embed_dim: int,
    num_heads: int,
    kv_stride: int,
    window_size: int,
    grid: tuple[int, int],
) -> list[BlockSizes]:
    """Return the sizes of all blocks of an ``MViT``.

    Args:
        depth: number of blocks.
        last_block_indexes: index of the last block of each stage.
        embed_dim: channels of the first stage.
        num_heads: number of heads of the first stage.
        kv_stride: stride of the pooling of keys and values in the first stage.
        window_size: side of the windows in the first stage, in tokens.
        grid: ``(height, width)`` of the first stage, in tokens.
    """
    sizes = []
    for i in range(depth):
        stage = sum(last < i for last in last_block_indexes)
        first = i - 1 in last_block_indexes
        attends_to_all = i in last_block_indexes[1:]
        # The first block of a stage still reads the channels and the grid of the stage before.
        input_stage = stage - 1 if first else stage
        stride_kv = max(kv_stride >> stage, 1)
        # In the second and third stage the whole grid is large, so global attention pools twice as far.
        if i in last_block_indexes[1:3]:
            stride_kv *= 2
        sizes.append(
            BlockSizes(
                dim=embed_dim << input_stage,
                dim_out=embed_dim << stage,
                num_heads=num_heads << stage,
                stride_q=2 if first else 1,
                stride_kv=stride_kv,
                window_size=0 if attends_to_all else window_size >> input_stage,
                grid=(grid[0] >> input_stage, grid[1] >> input_stage),
            )
        )
    return sizes


def _check_windows(sizes_of_blocks: Sequence[BlockSizes], adaptive_window_size: int) -> None:
    """Raise ValueError if a pooling stride does not divide the windows of its block."""
    for i, sizes in enumerate(sizes_of_blocks):
        for name, stride in (("queries", sizes.stride_q), ("keys and values", sizes.stride_kv)):
            if sizes.window_size % stride:
                raise ValueError(
                    f"adaptive_window_size={adaptive_window_size} gives block {i} windows of {sizes.window_size} tokens, "
                    f"which its pooling stride {stride} of {name} does not divide"
                )
