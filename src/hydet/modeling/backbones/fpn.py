"""Feature pyramid networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, ShapeSpec, c2_xavier_fill, get_norm
from hydet.modeling.joining import build_top_block

from .backbone import Backbone
from .resnet_blocks import Norm

__all__ = ["FPN", "LastLevelMaxPool", "LastLevelP6P7"]


class TopBlock(Protocol):
    """Coarser levels on top of a pyramid (``LastLevelMaxPool``, ``LastLevelP6P7``). An ``nn.Module``.

    Attributes:
        num_levels: number of levels that it adds.
        in_feature: name of its input, a feature of the backbone or a level of the pyramid.
    """

    num_levels: int
    in_feature: str

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Compute the levels, each half as large as the previous one, from ``(N, C, H, W)``."""
        ...


class FPN(Backbone):
    """Feature pyramid network: a top-down pathway with lateral connections over another backbone.

    Levels are named ``p2``, ``p3``, ... by log2 of their strides. Input sizes need not be multiples of
    ``size_divisibility``: the upsampled map takes the size of the lateral map.

    Args:
        bottom_up: backbone that computes the input features.
        in_features: names of the features to use, from fine to coarse; each stride is twice the previous one.
        out_channels: channels of each level.
        norm: normalization after each convolution, see ``hydet.layers.get_norm``; without it, convolutions have a bias.
        top_block: adds coarser levels. It has ``num_levels`` and ``in_feature``, the name of its input: a feature of
            ``bottom_up`` or, if there is none of that name, a level of the pyramid. A ``functools.partial`` is called
            with the ``in_channels`` of that feature.
        fuse_type: ``sum`` or ``avg`` of lateral and upsampled features.
        square_pad: if positive, images are padded to this height and width.

    Raises:
        ValueError: if an input feature does not exist, strides do not double, or ``top_block`` expects another number of
            channels than its input has.

    Source: Lin et al. 2017 (arXiv:1612.03144).
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: Norm = "",
        top_block: TopBlock | Callable[..., TopBlock] | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = bottom_up.output_shape()
        unknown = [name for name in in_features if name not in shapes]
        if unknown or not in_features:
            raise ValueError(
                f"FPN: in_features has {unknown or 'no name'}; {type(bottom_up).__name__} produces {list(shapes)}"
                + _single_stride_hint(shapes)
            )
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"FPN: fuse_type must be 'sum' or 'avg', got {fuse_type!r}")
        strides = [shapes[name].stride or 0 for name in in_features]
        check_doubling("FPN: strides of in_features", strides)
        built_top_block: TopBlock | None = build_top_block(top_block, shapes, out_channels)
        levels = [int(math.log2(stride)) for stride in strides]

        self.in_features = tuple(in_features)
        self.fuse_type = fuse_type
        self._levels = tuple(levels)
        for name, level in zip(in_features, levels):
            lateral = _pyramid_conv(shapes[name].channels, out_channels, 1, norm)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", _pyramid_conv(out_channels, out_channels, 3, norm))
        self.top_block = built_top_block
        self.bottom_up = bottom_up

        names = pyramid_names(levels, built_top_block, [*shapes], type(self).__name__)
        _check_channels(built_top_block, shapes, out_channels)
        self._out_features = list(names)
        self._out_feature_strides = names
        self._out_feature_channels = dict.fromkeys(names, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        """Coarsest stride of ``in_features``."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Arguments for ``ImageList.from_tensors``: ``square_size``, 0 if not set."""
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            x: ``(N, C, H, W)`` normalized images.

        Returns:
            ``(N, out_channels, H / stride, W / stride)`` by name, from fine to coarse.
        """
        features = self.bottom_up(x)
        merged: Tensor | None = None
        results: list[Tensor] = []  # from coarse to fine
        for name, level in zip(reversed(self.in_features), reversed(self._levels)):
            lateral = getattr(self, f"fpn_lateral{level}")(features[name])
            if merged is not None:
                lateral = _add_upsampled(lateral, merged)
                if self.fuse_type == "avg":
                    lateral = lateral / 2
            merged = lateral
            results.append(getattr(self, f"fpn_output{level}")(merged))
        results.reverse()
        return add_top_levels(self._out_features, results, self.top_block, features)


class LastLevelMaxPool(nn.Module):
    """Top block that adds P6 as every second cell of P5.

    P6 gives the RPN larger anchors. ROI heads do not pool from it, so it needs no weights.

    Args:
        in_feature: name of the input level.

    Source: Lin et al. 2017 (arXiv:1612.03144), section 4.2.
    """

    def __init__(self, *, in_feature: str = "p5") -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = in_feature

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map ``(N, C, H, W)`` to a list of one ``(N, C, H / 2, W / 2)``, rounded up."""
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class LastLevelP6P7(nn.Module):
    """Top block that adds P6 and P7 by 3x3 convolutions with stride 2.

    RetinaNet computes P6 from C5 (``res5``); later recipes compute it from P5, which is as accurate and smaller.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both levels.
        in_feature: name of the input feature.
        activate_p6: compute P7 from the ReLU of P6, as in the paper.

    Source: Lin et al. 2017 (arXiv:1708.02002), footnote 2.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, in_feature: str = "res5", activate_p6: bool = True
    ) -> None:
        super().__init__()
        self.activate_p6 = activate_p6
        self.num_levels = 2
        self.in_feature = in_feature
        self.in_channels = in_channels
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, c5: Tensor) -> list[Tensor]:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 2, W / 2)`` and ``(N, out_channels, H / 4, W / 4)``."""
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6) if self.activate_p6 else p6)]


def _add_upsampled(lateral: Tensor, coarse: Tensor) -> Tensor:
    """Return ``(N, C, H, W)`` laterals plus the nearest-neighbor upsampling of a coarser map.

    Without gradients, laterals stored channels last become the result, and no upsampled map is stored. On a large
    pyramid, new memory takes longer than the sums.
    """
    height, width = coarse.shape[-2:]
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or lateral.shape[-2:] != (2 * height, 2 * width)
        or not lateral.is_contiguous(memory_format=torch.channels_last)
    ):
        return lateral + F.interpolate(coarse, size=lateral.shape[-2:], mode="nearest")
    quads = lateral.view(*lateral.shape[:2], height, 2, width, 2)
    quads += coarse[:, :, :, None, :, None]
    return lateral


def check_doubling(what: str, strides: Sequence[int]) -> None:
    """Raise ValueError unless strides are powers of two and each is twice the previous one."""
    doubled = min(strides) > 0 and all(coarse == 2 * fine for fine, coarse in itertools.pairwise(strides))
    if not doubled or any(stride & (stride - 1) for stride in strides):
        raise ValueError(f"{what} must be powers of two, each twice the previous one; got {list(strides)}")


def pyramid_names(
    levels: Sequence[int], top_block: TopBlock | None, below: Sequence[str], owner: str
) -> dict[str, int]:
    """Return names and strides of the levels of a pyramid, including those of the top block.

    Raises:
        ValueError: if the input of the top block is neither a level nor in ``below``.
    """
    names = {f"p{level}": 2**level for level in levels}
    if top_block is None:
        return names
    if top_block.in_feature not in [*below, *names]:
        raise ValueError(
            f"{owner}: the top block reads {top_block.in_feature!r}; available are {[*below, *names]} "
            f"({type(top_block).__name__} takes in_feature)"
        )
    first = max(levels) + 1
    return names | {f"p{level}": 2**level for level in range(first, first + top_block.num_levels)}


def add_top_levels(
    names: Sequence[str], levels: list[Tensor], top_block: TopBlock | None, below: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Append the levels of the top block to ``levels``, and return all levels by name, from fine to coarse."""
    if top_block is not None:
        source = below.get(top_block.in_feature)
        levels += top_block(levels[names.index(top_block.in_feature)] if source is None else source)
    return dict(zip(names, levels, strict=True))


def _check_channels(top_block: TopBlock | None, below: Mapping[str, ShapeSpec], out_channels: int) -> None:
    """Raise ValueError if the top block declares other input channels than its input has."""
    expected = getattr(top_block, "in_channels", None)  # optional: a custom top block may not declare it
    if top_block is None or expected is None:
        return
    name = top_block.in_feature
    channels = below[name].channels if name in below else out_channels
    if channels not in (None, expected):
        raise ValueError(
            f"FPN: {type(top_block).__name__} takes in_channels={expected}, but {name!r} has {channels} channels"
        )


def _single_stride_hint(shapes: Mapping[str, ShapeSpec]) -> str:
    strides = {shape.stride for shape in shapes.values()}
    return (
        f", all of stride {strides.pop()}: SimpleFeaturePyramid builds a pyramid from one feature"
        if len(strides) == 1
        else ""
    )


def _pyramid_conv(in_channels: int | None, out_channels: int, kernel_size: int, norm: Norm) -> Conv2d:
    if in_channels is None:
        raise ValueError("FPN: bottom_up must declare the channels of its features")
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=norm is None or norm == "",
        norm=get_norm(norm, out_channels),
    )
    c2_xavier_fill(conv)
    return conv
