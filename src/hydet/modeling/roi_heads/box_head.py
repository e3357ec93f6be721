"""Box heads: turn the pooled features of each region into a vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from hydet.layers import Conv2d, Linear, ShapeSpec, c2_msra_fill, c2_xavier_fill, get_norm

__all__ = ["FastRCNNConvFCHead"]


class FastRCNNConvFCHead(nn.Sequential):
    """Box head of Fast R-CNN: 3x3 convolutions followed by fully connected layers, each with a ReLU.

    The input is ``(R, C, H, W)``. The output is ``(R, fc_dims[-1])``, or ``(R, conv_dims[-1], H, W)`` without fully
    connected layers.

    Args:
        input_shape: channels, height and width of the pooled features.
        conv_dims: output channels of each convolution.
        fc_dims: width of each fully connected layer.
        conv_norm: normalization of the convolutions, see ``hydet.layers.get_norm``.

    Raises:
        ValueError: if there is no layer, or ``input_shape`` lacks a number that the layers need.

    Source: Lin et al. 2017 (arXiv:1612.03144), section 4.2; with four convolutions, Wu & He 2018 (arXiv:1803.08494).
    """

    def __init__(
        self,
        *,
        input_shape: ShapeSpec,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm: str | Callable[[int], nn.Module] | None = "",
    ) -> None:
        super().__init__()
        if len(conv_dims) + len(fc_dims) == 0:
            raise ValueError("FastRCNNConvFCHead needs at least one entry in conv_dims or fc_dims")
        channels, height, width = input_shape.channels, input_shape.height, input_shape.width
        if channels is None:
            raise ValueError(f"FastRCNNConvFCHead: input_shape needs channels, got {input_shape}")
        for k, dim in enumerate(conv_dims, start=1):
            conv = Conv2d(
                channels,
                dim,
                kernel_size=3,
                padding=1,
                bias=not conv_norm,
                norm=get_norm(conv_norm, dim),
                activation=nn.ReLU(inplace=True),
            )
            c2_msra_fill(conv)
            self.add_module(f"conv{k}", conv)
            channels = dim
        self._output_shape = ShapeSpec(channels=channels, height=height, width=width)
        if fc_dims:
            if height is None or width is None:
                raise ValueError(
                    f"FastRCNNConvFCHead: fully connected layers need the size of the input, got {input_shape}"
                )
            size = channels * height * width
            self.add_module("flatten", nn.Flatten())
            for k, dim in enumerate(fc_dims, start=1):
                layer = Linear(size, dim)
                c2_xavier_fill(layer)
                self.add_module(f"fc{k}", layer)
                self.add_module(f"fc_relu{k}", nn.ReLU(inplace=True))
                size = dim
            self._output_shape = ShapeSpec(channels=size)

    @property
    def output_shape(self) -> ShapeSpec:
        """Shape of a region's features; without height and width after fully connected layers."""
        return self._output_shape
