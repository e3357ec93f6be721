"""What every backbone offers to the parts behind it."""

from __future__ import annotations

from torch import Tensor, nn

from hydet.layers import ShapeSpec

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """Turns a batch of images into named feature maps.

    Subclasses give ``forward`` and set ``_out_features`` (names, high to low resolution),
    ``_out_feature_channels`` and ``_out_feature_strides`` (name to number), or override ``output_shape``.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(B, C, H, W)`` images to feature maps by name."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 if any size will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further wishes on the padding: ``size_divisibility`` and ``square_size``; see ``ImageList``."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map, in the order of ``forward``'s result."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }
