"""Simple feature pyramid of ViTDet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from hydet.layers import Conv2d, get_norm

from .backbone import Backbone
from .fpn import TopBlock, add_top_levels, check_doubling, pyramid_names
from .resnet_blocks import Norm

__all__ = ["SimpleFeaturePyramid"]


class SimpleFeaturePyramid(Backbone):
    """Feature pyramid from a single feature map of a plain transformer.

    Levels are named ``p2``, ``p3``, ... by log2 of their strides.

    Args:
        net: backbone, such as ``ViT``.
        in_feature: name of the input feature.
        out_channels: channels of each level.
        scale_factors: resolution of each level relative to the input feature, from fine to coarse: 4, 2, 1 or 0.5.
        top_block: adds coarser levels; see ``FPN``.
        norm: normalization after the convolutions, see ``hydet.layers.get_norm``.
        square_pad: if positive, images are padded to this height and width.

    Raises:
        ValueError: if ``in_feature`` does not exist, or a scale factor is not supported.

    Source: Li et al. 2022 (arXiv:2203.16527), section 3.
    """

    def __init__(
        self,
        *,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: TopBlock | None = None,
        norm: Norm = "LN",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = net.output_shape()
        if in_feature not in shapes:
            raise ValueError(
                f"SimpleFeaturePyramid: no feature {in_feature!r}; {type(net).__name__} produces {list(shapes)}"
            )
        channels, stride = shapes[in_feature].channels, shapes[in_feature].stride
        if channels is None or stride is None:
            raise ValueError(f"SimpleFeaturePyramid: channels and stride of {in_feature!r} must be known")
        strides = [int(stride / scale) for scale in scale_factors]
        check_doubling("SimpleFeaturePyramid: strides", strides)
        levels = [int(math.log2(s)) for s in strides]
        for level, scale in zip(levels, scale_factors):
            self.add_module(f"simfp_{level}", _make_level(channels, out_channels, scale, norm))
        self.in_feature = in_feature
        self.top_block = top_block
        self.net = net

        names = pyramid_names(levels, top_block, [*shapes], type(self).__name__)
        self._levels = tuple(levels)
        self._out_features = list(names)
        self._out_feature_strides = names
        self._out_feature_channels = dict.fromkeys(names, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        """Coarsest stride of the pyramid."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Arguments for ``ImageList.from_tensors``: ``size_divisibility`` and ``square_size``."""
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            x: ``(N, C, H, W)`` normalized images.

        Returns:
            ``(N, out_channels, H / stride, W / stride)`` by name, from fine to coarse.
        """
        features = self.net(x)
        source = features[self.in_feature]
        results = [getattr(self, f"simfp_{level}")(source) for level in self._levels]
        return add_top_levels(self._out_features, results, self.top_block, features)


def _make_level(channels: int, out_channels: int, scale: float, norm: Norm) -> nn.Sequential:
    resample: list[nn.Module]
    if scale == 4.0:
        resample = [
            nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2),
            get_norm(norm, channels // 2) or nn.Identity(),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, kernel_size=2, stride=2),
        ]
        channels //= 4
    elif scale == 2.0:
        resample = [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
        channels //= 2
    elif scale == 1.0:
        resample = []
    elif scale == 0.5:
        resample = [nn.MaxPool2d(kernel_size=2, stride=2)]
    else:
        raise ValueError(f"SimpleFeaturePyramid: a scale factor must be 4, 2, 1 or 0.5, got {scale}")
    bias = norm is None or norm == ""
    return nn.Sequential(
        *resample,
        Conv2d(channels, out_channels, 1, bias=bias, norm=get_norm(norm, out_channels)),
        Conv2d(out_channels, out_channels, 3, padding=1, bias=bias, norm=get_norm(norm, out_channels)),
    )
