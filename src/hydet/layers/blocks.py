"""Building blocks of convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .conv import Conv2d
from .norms import FrozenBatchNorm2d, get_norm

__all__ = ["CNNBlockBase", "DepthwiseSeparableConv2d"]

Norm = str | Callable[[int], nn.Module] | None


class CNNBlockBase(nn.Module):
    """Base of residual blocks, with declared channels and stride.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: ratio of input to output resolution.
    """

    def __init__(self, *, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> CNNBlockBase:
        """Freeze the block: disable gradients and replace batch norms by ``FrozenBatchNorm2d``. Return self."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A depthwise convolution followed by a pointwise one (Chollet 2016, arXiv:1610.02357).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: kernel size of the depthwise convolution.
        padding: padding of the depthwise convolution.
        dilation: dilation of the depthwise convolution.
        norm1: normalization after the depthwise convolution, see ``get_norm``.
        activation1: activation after ``norm1``.
        norm2: normalization after the pointwise convolution.
        activation2: activation after ``norm2``.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        norm1: Norm = None,
        activation1: Callable[[Tensor], Tensor] | None = None,
        norm2: Norm = None,
        activation2: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.depthwise = Conv2d(
            in_channels,
            in_channels,
            kernel_size=kernel_size,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=not norm1,
            norm=get_norm(norm1, in_channels),
            activation=activation1,
        )
        self.pointwise = Conv2d(
            in_channels,
            out_channels,
            kernel_size=1,
            bias=not norm2,
            norm=get_norm(norm2, out_channels),
            activation=activation2,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``."""
        output: Tensor = self.pointwise(self.depthwise(x))
        return output
