"""Deformable convolutions (v1, v2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from .tensor_ops import as_pair

__all__ = ["DeformConv", "ModulatedDeformConv"]


class _DeformableConv(nn.Module):
    """Weights, checks and the call into torchvision, shared by both versions."""

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
        self.kernel_size, self.stride = as_pair(kernel_size), as_pair(stride)
        self.padding, self.dilation = as_pair(padding), as_pair(dilation)
        self.groups, self.deformable_groups = groups, deformable_groups
        self.norm, self.activation = norm, activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def _sample(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        taps = self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]
        if offset.shape[1] != 2 * taps or (mask is not None and mask.shape[1] != taps):
            got = [offset.shape[1]] if mask is None else [offset.shape[1], mask.shape[1]]
            raise ValueError(f"offset needs {2 * taps} channels and a mask {taps}, got {got}")
        x = deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"deformable_groups={self.deformable_groups}, bias={self.bias is not None}"
        )


class DeformConv(_DeformableConv):
    """Deformable convolution (Dai et al. 2017, arXiv:1703.06211).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: one number or ``(height, width)``.
        stride: one number or ``(height, width)``.
        padding: zeros added to each side, one number or ``(height, width)``.
        dilation: one number or ``(height, width)``.
        groups: groups of the convolution.
        deformable_groups: number of groups of input channels; each group has its own offsets.
        bias: must be False, as in detectron2.
        norm: normalization layer applied to the output, or None.
        activation: function or module applied last, or None.

    Raises:
        ValueError: if ``bias`` is True, or the groups do not divide the channels.
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
            raise ValueError("DeformConv does not support a bias; ModulatedDeformConv does")
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
        """Convolve at the offset positions.

        Args:
            x: ``(B, in_channels, H, W)``.
            offset: ``(B, 2 * deformable_groups * kh * kw, H', W')`` as ``(y, x)`` for each kernel position, in cells of
                ``x``.

        Returns:
            ``(B, out_channels, H', W')``.
        """
        return self._sample(x, offset, None)


class ModulatedDeformConv(_DeformableConv):
    """Deformable convolution with a learned weight per sample (Zhu et al. 2018, arXiv:1811.11168).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: one number or ``(height, width)``.
        stride: one number or ``(height, width)``.
        padding: zeros added to each side, one number or ``(height, width)``.
        dilation: one number or ``(height, width)``.
        groups: groups of the convolution.
        deformable_groups: number of groups of input channels; each group has its own offsets.
        bias: add a learned bias.
        norm: normalization layer applied to the output, or None.
        activation: function or module applied last, or None.

    Raises:
        ValueError: if the groups do not divide the channels.
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
        """Convolve at the offset positions, with weighted samples.

        Args:
            x: ``(B, in_channels, H, W)``.
            offset: ``(B, 2 * deformable_groups * kh * kw, H', W')`` as ``(y, x)`` for each kernel position, in cells of
                ``x``.
            mask: ``(B, deformable_groups * kh * kw, H', W')`` factors of the samples, usually in [0, 1].

        Returns:
            ``(B, out_channels, H', W')``.
        """
        return self._sample(x, offset, mask)
