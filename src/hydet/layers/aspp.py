"""Atrous spatial pyramid pooling."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import DepthwiseSeparableConv2d
from .conv import Conv2d
from .initialization import c2_xavier_fill
from .norms import get_norm

__all__ = ["ASPP"]


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel dilated convolutions and a pooled branch, fused by a 1x1 convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of each branch and of the output.
        dilations: dilation of each of the three 3x3 branches.
        norm: see ``get_norm``; applied after each convolution except that of the pooled branch, whose 1x1 map leaves
            nothing to normalize. Convolutions have a bias only if ``norm`` is ``""``; the pooled branch always has one.
        activation: function or module applied after each convolution; each branch gets a copy.
        pool_kernel_size: ``(height, width)`` of the average pooling, which must divide the input; None pools the whole
            input.
        dropout: probability of zeroing an output value in training.
        use_depthwise_separable_conv: build the 3x3 branches from ``DepthwiseSeparableConv2d``.

    Raises:
        ValueError: if the number of dilations is not three.

    Source: Chen et al. 2017 (arXiv:1706.05587), section 3.3; the separable variant is from arXiv:1802.02611.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        norm: str | Callable[[int], nn.Module] | None,
        activation: Callable[[Tensor], Tensor],
        pool_kernel_size: tuple[int, int] | None = None,
        dropout: float = 0.0,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        super().__init__()
        if len(dilations) != 3:
            raise ValueError(f"ASPP takes 3 dilations, got {len(dilations)}: {list(dilations)}")
        self.pool_kernel_size: tuple[int, int] | None = None
        if pool_kernel_size is not None:
            self.pool_kernel_size = (pool_kernel_size[0], pool_kernel_size[1])
        self.dropout = dropout

        def conv(channels: int, kernel_size: int, dilation: int = 1) -> Conv2d:
            layer = Conv2d(
                channels,
                out_channels,
                kernel_size=kernel_size,
                padding=dilation * (kernel_size // 2),
                dilation=dilation,
                bias=norm == "",
                norm=get_norm(norm, out_channels),
                activation=copy.deepcopy(activation),
            )
            c2_xavier_fill(layer)
            return layer

        def separable_conv(dilation: int) -> DepthwiseSeparableConv2d:
            return DepthwiseSeparableConv2d(
                in_channels=in_channels,
                out_channels=out_channels,
                kernel_size=3,
                padding=dilation,
                dilation=dilation,
                norm1=norm,
                activation1=copy.deepcopy(activation),
                norm2=norm,
                activation2=copy.deepcopy(activation),
            )

        pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        if self.pool_kernel_size is not None:
            pool = nn.AvgPool2d(kernel_size=self.pool_kernel_size, stride=1)
        context = Conv2d(in_channels, out_channels, 1, bias=True, activation=copy.deepcopy(activation))
        c2_xavier_fill(context)

        branches: list[nn.Module] = [conv(in_channels, 1)]
        for dilation in dilations:
            separable = use_depthwise_separable_conv
            branches.append(separable_conv(dilation) if separable else conv(in_channels, 3, dilation))
        branches.append(nn.Sequential(pool, context))
        self.convs = nn.ModuleList(branches)
        self.project = conv(5 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.

        Raises:
            ValueError: if ``pool_kernel_size`` does not divide ``(H, W)``.
        """
        size = x.shape[-2:]
        if self.pool_kernel_size is not None:
            height, width = self.pool_kernel_size
            if size[0] % height or size[1] % width:
                raise ValueError(
                    f"ASPP: pool_kernel_size {self.pool_kernel_size} must divide the input size {tuple(size)}"
                )
        outputs = [branch(x) for branch in self.convs]
        outputs[-1] = F.interpolate(outputs[-1], size=size, mode="bilinear", align_corners=False)
        x = self.project(torch.cat(outputs, dim=1))  # 5 x (N, C, H, W) -> (N, C, H, W)
        return F.dropout(x, self.dropout, self.training) if self.dropout > 0 else x
