"""Convolutions that sample where they are told to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

__all__ = ["DeformConv", "ModulatedDeformConv"]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _Deformable(nn.Module):
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int],
        dilation: int | tuple[int, int],
        groups: int,
        deformable_groups: int,
        bias: bool,
        norm: nn.Module | None,
        activation: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        for name, parts in (("groups", groups), ("deformable_groups", deformable_groups)):
            if in_channels % parts:
                raise ValueError(f"{name}={parts} does not divide in_channels={in_channels}")
        if out_channels % groups:
            raise ValueError(f"groups={groups} does not divide out_channels={out_channels}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.groups, self.deformable_groups = groups, deformable_groups
        self.norm, self.activation = norm, activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def _sample(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        taps = self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]
        if offset.shape[1] != 2 * taps or (mask is not None and mask.shape[1] != taps):
            came = [offset.shape[1]] if mask is None else [offset.shape[1], mask.shape[1]]
            raise ValueError(f"offset needs {2 * taps} channels and a mask {taps}, got {came}")
        x = deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"deformable_groups={self.deformable_groups}, bias={self.bias is not None}"
        )


class DeformConv(_Deformable):
    """Deformable convolution (Dai et al. 2017, arXiv:1703.06211).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: one number or (height, width), like the next three.
        stride: of the output grid.
        padding: with zeros.
        dilation: between taps.
        groups: of the convolution.
        deformable_groups: groups of input channels with offsets of their own.
        bias: must be false, as in the reference.
        norm: applied to the output.
        activation: applied last.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if bias:
            raise ValueError("DeformConv has no bias; ModulatedDeformConv may have one")
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            deformable_groups=deformable_groups,
            bias=bias,
            norm=norm,
            activation=activation,
        )

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: ``(B, in_channels, H, W)``.
            offset: ``(B, 2 * deformable_groups * kh * kw, H', W')``, in cells, as (y, x) for each tap.

        Returns:
            ``(B, out_channels, H', W')``.
        """
        return self._sample(x, offset, None)


class ModulatedDeformConv(_Deformable):
    """Deformable convolution whose taps are weighted (Zhu et al. 2018, arXiv:1811.11168).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: one number or (height, width), like the next three.
        stride: of the output grid.
        padding: with zeros.
        dilation: between taps.
        groups: of the convolution.
        deformable_groups: groups of input channels with offsets of their own.
        bias: add one.
        norm: applied to the output.
        activation: applied last.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            deformable_groups=deformable_groups,
            bias=bias,
            norm=norm,
            activation=activation,
        )

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """As ``DeformConv``, with ``mask`` ``(B, deformable_groups * kh * kw, H', W')`` multiplied to the samples."""
        return self._sample(x, offset, mask)
