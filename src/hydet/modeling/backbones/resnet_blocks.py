"""Stem and blocks of residual networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import (
    CNNBlockBase,
    Conv2d,
    DeformConv,
    ModulatedDeformConv,
    c2_msra_fill,
    get_norm,
)

__all__ = ["BasicBlock", "BasicStem", "BottleneckBlock", "DeformBottleneckBlock"]

Norm = str | Callable[[int], nn.Module] | None


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    norm: Norm,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
) -> Conv2d:
    """Make a padded convolution without bias, with normalization and the initial weights of He et al. 2015."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    c2_msra_fill(conv)
    return conv


def _make_shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm) -> Conv2d | None:
    """Make a 1x1 convolution where input and output shapes differ, or return None."""
    if in_channels == out_channels and stride == 1:
        return None
    return _conv(in_channels, out_channels, 1, stride=stride, norm=norm)


class BasicStem(CNNBlockBase):
    """A 7x7 convolution and a max pooling, both with stride 2.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output.
        norm: see ``hydet.layers.get_norm``.
    """

    # Reduced precision of the image and the first layer reaches everything behind them.
    float32_layers = ("conv1",)

    def __init__(self, *, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=4)
        self.conv1 = _conv(in_channels, out_channels, 7, stride=2, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 4, W / 4)``, rounded up."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class BasicBlock(CNNBlockBase):
    """Two 3x3 convolutions with a shortcut, as in ResNet-18 and 34.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both convolutions.
        stride: stride of the first convolution. The shortcut is a 1x1 convolution if channels or size change.
        norm: see ``hydet.layers.get_norm``.
        dilation: dilation of both convolutions.

    Source: He et al. 2015 (arXiv:1512.03385), figure 2.
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
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.shortcut = _make_shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, stride=stride, norm=norm, dilation=dilation)
        self.conv2 = _conv(out_channels, out_channels, 3, norm=norm, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        out = self.conv2(F.relu_(self.conv1(x)))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BottleneckBlock(CNNBlockBase):
    """1x1, 3x3 and 1x1 convolutions with a shortcut, as in ResNet-50 and deeper, and in ResNeXt.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bottleneck_channels: channels of the 3x3 convolution.
        stride: stride of one convolution. The shortcut is a 1x1 convolution if channels or size change.
        num_groups: groups of the 3x3 convolution.
        norm: see ``hydet.layers.get_norm``.
        stride_in_1x1: put the stride into the first 1x1 convolution, as the original (MSRA) weights expect, instead of
            the 3x3 convolution, as torchvision's weights expect.
        dilation: dilation of the 3x3 convolution.

    Source: He et al. 2015 (arXiv:1512.03385), figure 5; Xie et al. 2016 (arXiv:1611.05431).
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
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=stride)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _make_shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, stride=stride_1x1, norm=norm)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            stride=stride_3x3,
            groups=num_groups,
            dilation=dilation,
            norm=norm,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        out = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class DeformBottleneckBlock(CNNBlockBase):
    """A bottleneck block with a deformable 3x3 convolution, whose offsets start at zero.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bottleneck_channels: channels of the 3x3 convolution.
        stride: see ``BottleneckBlock``.
        num_groups: groups of the 3x3 convolution.
        norm: see ``hydet.layers.get_norm``.
        stride_in_1x1: see ``BottleneckBlock``.
        dilation: dilation of the 3x3 convolution.
        deform_modulated: weight each sample by a learned factor in (0, 1).
        deform_num_groups: number of channel groups; each has its own offsets.

    Source: Dai et al. 2017 (arXiv:1703.06211); Zhu et al. 2018 (arXiv:1811.11168).
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
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.deform_modulated = deform_modulated
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _make_shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, stride=stride_1x1, norm=norm)
        # Two coordinates for each of the nine samples, and a weight if modulated.
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            (27 if deform_modulated else 18) * deform_num_groups,
            kernel_size=3,
            stride=stride_3x3,
            padding=dilation,
            dilation=dilation,
        )
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)  # type: ignore[arg-type]
        self.conv2 = (ModulatedDeformConv if deform_modulated else DeformConv)(
            in_channels=bottleneck_channels,
            out_channels=bottleneck_channels,
            kernel_size=3,
            stride=stride_3x3,
            padding=dilation,
            bias=False,
            groups=num_groups,
            dilation=dilation,
            deformable_groups=deform_num_groups,
            norm=get_norm(norm, bottleneck_channels),
        )
        c2_msra_fill(self.conv2)
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        out = F.relu_(self.conv1(x))
        offset = self.conv2_offset(out)
        if self.deform_modulated:
            x_part, y_part, mask = offset.chunk(3, dim=1)
            out = self.conv2(out, torch.cat([x_part, y_part], dim=1), mask.sigmoid())
        else:
            out = self.conv2(out, offset)
        out = self.conv3(F.relu_(out))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)
