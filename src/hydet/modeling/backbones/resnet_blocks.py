"""Stem and residual blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import CNNBlockBase, Conv2d, DeformConv, ModulatedDeformConv, c2_msra_fill, get_norm

__all__ = ["BasicBlock", "BasicStem", "BottleneckBlock", "DeformBottleneckBlock"]

Norm = str | Callable[[int], nn.Module] | None


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: Norm, **kwargs: Any) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )
    c2_msra_fill(conv)
    return conv


class BasicStem(CNNBlockBase):
    """A 7x7 convolution of stride 2 and a 3x3 maximum of stride 2.

    Args:
        in_channels: of the image.
        out_channels: of the output, at stride 4.
        norm: see ``get_norm``.

    Source: He et al. 2015 (arXiv:1512.03385), table 1.
    """

    def __init__(self, *, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class BasicBlock(CNNBlockBase):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution exactly if channels change.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the first convolution.
        norm: see ``get_norm``.
        dilation: of both convolutions.

    Source: He et al. 2015 (arXiv:1512.03385), figure 5 left.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        norm: Norm = "BN",
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        if in_channels != out_channels:
            self.shortcut: nn.Module | None = _conv(in_channels, out_channels, 1, norm, stride=stride)
        else:
            self.shortcut = None
        around = {"padding": dilation, "dilation": dilation}
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride, **around)
        self.conv2 = _conv(out_channels, out_channels, 3, norm, **around)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(out + _shortcut(x, self.shortcut, self.stride))


def _shortcut(x: Tensor, projection: nn.Module | None, stride: int) -> Tensor:
    """The projection, or the input itself, subsampled where the block strides without changing channels."""
    if projection is not None:
        return projection(x)
    return x if stride == 1 else x[:, :, ::stride, ::stride]


class BottleneckBlock(CNNBlockBase):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, which is a 1x1 convolution exactly if channels change.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        bottleneck_channels: of the 3x3 convolution.
        stride: of the block.
        num_groups: of the 3x3 convolution.
        norm: see ``get_norm``.
        stride_in_1x1: the first 1x1 convolution strides, as in the original weights, not the 3x3 one.
        dilation: of the 3x3 convolution.

    Source: He et al. 2015 (arXiv:1512.03385), figure 5 right; Xie et al. 2016 (arXiv:1611.05431) for the groups.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        if in_channels != out_channels:
            self.shortcut: nn.Module | None = _conv(in_channels, out_channels, 1, norm, stride=stride)
        else:
            self.shortcut = None
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = self._middle_conv(bottleneck_channels, norm, stride_3x3, num_groups, dilation)
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def _middle_conv(self, channels: int, norm: Norm, stride: int, groups: int, dilation: int) -> nn.Module:
        return _conv(
            channels, channels, 3, norm, stride=stride, padding=dilation, groups=groups, dilation=dilation
        )

    def _middle(self, x: Tensor) -> Tensor:
        return self.conv2(x)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self._middle(out))
        out = self.conv3(out)
        return F.relu_(out + _shortcut(x, self.shortcut, self.stride))


class DeformBottleneckBlock(BottleneckBlock):
    """A bottleneck whose 3x3 convolution is deformable; offsets start at zero.

    Args:
        deform_modulated: also predict a mask (version 2).
        deform_num_groups: groups of channels with offsets of their own.

    The other arguments are those of ``BottleneckBlock``.

    Source: Dai et al. 2017 (arXiv:1703.06211); Zhu et al. 2018 (arXiv:1811.11168) for the modulation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        self._deform = (deform_modulated, deform_num_groups)
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
        self.deform_modulated = deform_modulated
        offsets = (27 if deform_modulated else 18) * deform_num_groups
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            offsets,
            kernel_size=3,
            stride=1 if stride_in_1x1 else stride,
            padding=dilation,
            dilation=dilation,
        )
        nn.init.constant_(self.conv2_offset.weight, 0)
        nn.init.constant_(self.conv2_offset.bias, 0)  # type: ignore[arg-type]

    def _middle_conv(self, channels: int, norm: Norm, stride: int, groups: int, dilation: int) -> nn.Module:
        modulated, deformable_groups = self._deform
        conv = (ModulatedDeformConv if modulated else DeformConv)(
            in_channels=channels,
            out_channels=channels,
            kernel_size=3,
            stride=stride,
            padding=dilation,
            bias=False,
            groups=groups,
            dilation=dilation,
            deformable_groups=deformable_groups,
            norm=get_norm(norm, channels),
        )
        c2_msra_fill(conv)
        return conv

    def _middle(self, x: Tensor) -> Tensor:
        found = self.conv2_offset(x)
        if not self.deform_modulated:
            return self.conv2(x, found)
        first, second, mask = found.chunk(3, dim=1)
        return self.conv2(x, torch.cat([first, second], dim=1), mask.sigmoid())
