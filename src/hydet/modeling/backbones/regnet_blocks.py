"""Stems and blocks of the RegNet design space."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import CNNBlockBase, get_norm

from .resnet_blocks import Norm

__all__ = [
    "ResBasicBlock",
    "ResBottleneckBlock",
    "ResStem",
    "SimpleStem",
    "SqueezeExcitation",
    "VanillaBlock",
]

Activation = Callable[[], nn.Module]


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=bias,
    )


def _norm(norm: Norm, channels: int) -> nn.Module:
    return get_norm(norm, channels) or nn.Identity()


class ResStem(CNNBlockBase):
    """A 7x7 convolution and a max pooling, both with stride 2.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output.
        norm: see ``hydet.layers.get_norm``.
        activation_class: makes an activation; called without arguments.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        norm: Norm = "BN",
        activation_class: Activation = nn.ReLU,
    ) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=4)
        self.conv = _conv(in_channels, out_channels, 7, stride=2)
        self.bn = _norm(norm, out_channels)
        self.af = activation_class()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 4, W / 4)``, rounded up."""
        return F.max_pool2d(self.af(self.bn(self.conv(x))), kernel_size=3, stride=2, padding=1)


class SimpleStem(CNNBlockBase):
    """A 3x3 convolution with stride 2.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output.
        norm: see ``hydet.layers.get_norm``.
        activation_class: makes an activation; called without arguments.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        norm: Norm = "BN",
        activation_class: Activation = nn.ReLU,
    ) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=2)
        self.conv = _conv(in_channels, out_channels, 3, stride=2)
        self.bn = _norm(norm, out_channels)
        self.af = activation_class()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 2, W / 2)``, rounded up."""
        output: Tensor = self.af(self.bn(self.conv(x)))
        return output


class SqueezeExcitation(nn.Module):
    """Squeeze-excitation: scale each channel by a factor in (0, 1) computed from the means of all channels.

    Args:
        channels: channels of input and output.
        squeezed_channels: channels of the hidden layer.
        activation_class: makes an activation; called without arguments.

    Source: Hu et al. 2017 (arXiv:1709.01507).
    """

    def __init__(
        self, *, channels: int, squeezed_channels: int, activation_class: Activation = nn.ReLU
    ) -> None:
        super().__init__()
        self.f_ex = nn.Sequential(
            _conv(channels, squeezed_channels, 1, bias=True),
            activation_class(),
            _conv(squeezed_channels, channels, 1, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        output: Tensor = x * self.f_ex(F.adaptive_avg_pool2d(x, 1))
        return output


class VanillaBlock(CNNBlockBase):
    """Two 3x3 convolutions without a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both convolutions.
        stride: stride of the first convolution.
        norm: see ``hydet.layers.get_norm``.
        activation_class: makes an activation; called without arguments.
        bottleneck_ratio: ignored.
        group_width: ignored.
        se_ratio: ignored.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm: Norm = "BN",
        activation_class: Activation = nn.ReLU,
        bottleneck_ratio: float = 1.0,
        group_width: int = 1,
        se_ratio: float = 0.0,
    ) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.a = _conv(in_channels, out_channels, 3, stride=stride)
        self.a_bn = _norm(norm, out_channels)
        self.a_af = activation_class()
        self.b = _conv(out_channels, out_channels, 3)
        self.b_bn = _norm(norm, out_channels)
        self.b_af = activation_class()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        x = self.a_af(self.a_bn(self.a(x)))
        output: Tensor = self.b_af(self.b_bn(self.b(x)))
        return output


class BasicTransform(nn.Module):
    """Residual branch of ``ResBasicBlock``: two 3x3 convolutions."""

    def __init__(
        self, *, in_channels: int, out_channels: int, stride: int, norm: Norm, activation_class: Activation
    ) -> None:
        super().__init__()
        self.a = _conv(in_channels, out_channels, 3, stride=stride)
        self.a_bn = _norm(norm, out_channels)
        self.a_af = activation_class()
        self.b = _conv(out_channels, out_channels, 3)
        self.b_bn = _norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        x = self.a_af(self.a_bn(self.a(x)))
        output: Tensor = self.b_bn(self.b(x))
        return output


class BottleneckTransform(nn.Module):
    """Residual branch of ``ResBottleneckBlock``: 1x1, 3x3 and 1x1 convolutions, and optional squeeze-excitation."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm: Norm,
        activation_class: Activation,
        bottleneck_ratio: float,
        group_width: int,
        se_ratio: float,
    ) -> None:
        super().__init__()
        inner = round(out_channels * bottleneck_ratio)
        if inner % group_width:
            raise ValueError(
                f"a bottleneck of {inner} channels ({out_channels} x {bottleneck_ratio}) is not a multiple of "
                f"group_width {group_width}"
            )
        self.a = _conv(in_channels, inner, 1)
        self.a_bn = _norm(norm, inner)
        self.a_af = activation_class()
        self.b = _conv(inner, inner, 3, stride=stride, groups=inner // group_width)
        self.b_bn = _norm(norm, inner)
        self.b_af = activation_class()
        squeezed = round(in_channels * se_ratio)  # relative to the input of the block, not to the bottleneck
        self.se: nn.Module | None = None
        if squeezed > 0:
            self.se = SqueezeExcitation(
                channels=inner, squeezed_channels=squeezed, activation_class=activation_class
            )
        self.c = _conv(inner, out_channels, 1)
        self.c_bn = _norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        x = self.a_af(self.a_bn(self.a(x)))
        x = self.b_af(self.b_bn(self.b(x)))
        if self.se is not None:
            x = self.se(x)
        output: Tensor = self.c_bn(self.c(x))
        return output


class ResBasicBlock(CNNBlockBase):
    """Two 3x3 convolutions with a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both convolutions.
        stride: stride of the first convolution. The shortcut is a 1x1 convolution if channels or size change.
        norm: see ``hydet.layers.get_norm``.
        activation_class: makes an activation; called without arguments.
        bottleneck_ratio: ignored.
        group_width: ignored.
        se_ratio: ignored.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm: Norm = "BN",
        activation_class: Activation = nn.ReLU,
        bottleneck_ratio: float = 1.0,
        group_width: int = 1,
        se_ratio: float = 0.0,
    ) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.proj: nn.Module | None = None
        self.bn: nn.Module | None = None
        if in_channels != out_channels or stride != 1:
            self.proj = _conv(in_channels, out_channels, 1, stride=stride)
            self.bn = _norm(norm, out_channels)
        self.f: nn.Module = self._make_transform(
            in_channels=in_channels,
            out_channels=out_channels,
            stride=stride,
            norm=norm,
            activation_class=activation_class,
            bottleneck_ratio=bottleneck_ratio,
            group_width=group_width,
            se_ratio=se_ratio,
        )
        self.af = activation_class()

    @staticmethod
    def _make_transform(
        *, bottleneck_ratio: float, group_width: int, se_ratio: float, **options: object
    ) -> nn.Module:
        return BasicTransform(**options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``, rounded up."""
        identity = x if self.proj is None or self.bn is None else self.bn(self.proj(x))
        output: Tensor = self.af(identity + self.f(x))
        return output


class ResBottleneckBlock(ResBasicBlock):
    """1x1, 3x3 and 1x1 convolutions with a shortcut: the block of RegNetX and, with ``se_ratio``, of RegNetY.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the 3x3 convolution. The shortcut is a 1x1 convolution if channels or size change.
        norm: see ``hydet.layers.get_norm``.
        activation_class: makes an activation; called without arguments.
        bottleneck_ratio: ratio of the channels of the 3x3 convolution to ``out_channels``.
        group_width: channels per group of the 3x3 convolution.
        se_ratio: ratio of the squeezed channels to ``in_channels``; 0 disables squeeze-excitation.
    """

    @staticmethod
    def _make_transform(**options: object) -> nn.Module:
        return BottleneckTransform(**options)  # type: ignore[arg-type]
