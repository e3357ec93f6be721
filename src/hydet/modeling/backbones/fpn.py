"""Feature pyramids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, ShapeSpec, c2_xavier_fill, get_norm
from hydet.modeling.joining import build_top_block

from .backbone import Backbone
from .resnet_blocks import Norm

__all__ = ["FPN", "LastLevelMaxPool", "LastLevelP6P7"]


class FPN(Backbone):
    """Makes features of several strides equally strong, by a path from coarse to fine over another backbone.

    The levels are called ``p2``, ``p3`` ... after the base-2 logarithm of their strides.

    Args:
        bottom_up: the other backbone.
        in_features: which of its features take part, from fine to coarse; each stride is twice the one before.
        out_channels: channels of every level.
        norm: after each convolution, see ``hydet.layers.get_norm``; without it they have biases.
        top_block: makes further, coarser levels. It has ``num_levels``, and ``in_feature``: the name of its input,
            looked for among the features of ``bottom_up`` first, then among the levels of the pyramid. A
            ``functools.partial`` is called with the ``in_channels`` of that feature.
        fuse_type: ``sum`` or ``avg`` of the lateral and the upsampled features.
        square_pad: if positive, ask for images padded to this height and width.

    Inputs need not be multiples of ``size_divisibility``: the upsampled map takes the lateral one's size.

    Raises:
        ValueError: if ``in_features`` or the input of ``top_block`` does not exist, if strides do not double, or if
            ``top_block`` takes another number of channels than its input has.

    Source: Lin et al. 2017 (arXiv:1612.03144).
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: Norm = "",
        top_block: nn.Module | Callable[..., nn.Module] | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = bottom_up.output_shape()
        unknown = [name for name in in_features if name not in shapes]
        if unknown or not in_features:
            raise ValueError(
                f"FPN: in_features has {unknown or 'no name'}; {type(bottom_up).__name__} produces {list(shapes)}"
                + _advice(shapes)
            )
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"FPN: fuse_type must be 'sum' or 'avg', got {fuse_type!r}")
        strides = [shapes[name].stride or 0 for name in in_features]
        check_doubling("FPN: strides of in_features", strides)
        top_block = build_top_block(top_block, shapes, out_channels)
        levels = [int(math.log2(stride)) for stride in strides]

        self.in_features = tuple(in_features)
        self.fuse_type = fuse_type
        self._levels = tuple(levels)
        for name, level in zip(in_features, levels):
            lateral = _pyramid_conv(shapes[name].channels, out_channels, 1, norm)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", _pyramid_conv(out_channels, out_channels, 3, norm))
        self.top_block = top_block
        self.bottom_up = bottom_up

        names = pyramid_names(levels, top_block, [*shapes], type(self).__name__)
        _check_channels(top_block, shapes, out_channels)
        self._out_features = list(names)
        self._out_feature_strides = names
        self._out_feature_channels = dict.fromkeys(names, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride of ``in_features``."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            x: ``(N, C, H, W)`` images, as ``bottom_up`` takes them.

        Returns:
            ``(N, out_channels, H / stride, W / stride)`` by name, from fine to coarse.
        """
        features = self.bottom_up(x)
        merged: Tensor | None = None
        results: list[Tensor] = []  # from coarse to fine
        for name, level in zip(reversed(self.in_features), reversed(self._levels)):
            lateral = getattr(self, f"fpn_lateral{level}")(features[name])
            if merged is not None:
                lateral = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
                if self.fuse_type == "avg":
                    lateral = lateral / 2
            merged = lateral
            results.append(getattr(self, f"fpn_output{level}")(merged))
        results.reverse()
        return add_top_levels(self._out_features, results, self.top_block, features)


class LastLevelMaxPool(nn.Module):
    """One more level: every second cell of another.

    Args:
        in_feature: the level it reads.

    Source: Lin et al. 2017 (arXiv:1612.03144), section 4.2.
    """

    def __init__(self, *, in_feature: str = "p5") -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = in_feature

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(N, C, H, W)`` to one ``(N, C, H / 2, W / 2)``, rounded up."""
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class LastLevelP6P7(nn.Module):
    """Two more levels, by 3x3 convolutions of stride 2.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both levels.
        in_feature: the feature it reads.

    Source: Lin et al. 2017 (arXiv:1708.02002), footnote 2.
    """

    def __init__(self, *, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.in_channels = in_channels
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, c5: Tensor) -> list[Tensor]:
        """``(N, in_channels, H, W)`` to ``(N, out_channels, H / 2, W / 2)`` and the same at H / 4, W / 4."""
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]


def check_doubling(what: str, strides: Sequence[int]) -> None:
    """Raise ValueError unless the strides are powers of two, each twice the one before."""
    doubled = min(strides) > 0 and all(coarse == 2 * fine for fine, coarse in itertools.pairwise(strides))
    if not doubled or any(stride & (stride - 1) for stride in strides):
        raise ValueError(f"{what} must be powers of two, each twice the one before; got {list(strides)}")


def pyramid_names(levels: Sequence[int], top_block: Any, below: Sequence[str], owner: str) -> dict[str, int]:
    """Names and strides of the levels of a pyramid, those of the top block included.

    Raises:
        ValueError: if the top block reads what is neither among ``levels`` nor in ``below``.
    """
    names = {f"p{level}": 2**level for level in levels}
    if top_block is None:
        return names
    if top_block.in_feature not in [*below, *names]:
        raise ValueError(
            f"{owner}: the top block reads {top_block.in_feature!r}; there are {[*below, *names]} "
            f"({type(top_block).__name__} takes in_feature)"
        )
    first = max(levels) + 1
    return names | {f"p{level}": 2**level for level in range(first, first + top_block.num_levels)}


def add_top_levels(
    names: Sequence[str], levels: list[Tensor], top_block: Any, below: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Extend ``levels``, from fine to coarse, by those of the top block, and name them all."""
    if top_block is not None:
        source = below.get(top_block.in_feature)
        levels += top_block(levels[names.index(top_block.in_feature)] if source is None else source)
    return dict(zip(names, levels, strict=True))


def _check_channels(top_block: Any, below: Mapping[str, ShapeSpec], out_channels: int) -> None:
    """A top block of our own, whose input channels are known, must read a feature that has as many."""
    wanted = getattr(top_block, "in_channels", None)
    if wanted is None:
        return
    name = top_block.in_feature
    found = below[name].channels if name in below else out_channels
    if found not in (None, wanted):
        raise ValueError(
            f"FPN: {type(top_block).__name__} takes in_channels={wanted}, but {name!r} has {found} channels"
        )


def _advice(shapes: Mapping[str, ShapeSpec]) -> str:
    strides = {shape.stride for shape in shapes.values()}
    return (
        f", all of stride {strides.pop()}: SimpleFeaturePyramid makes a pyramid of one"
        if len(strides) == 1
        else ""
    )


def _pyramid_conv(in_channels: int | None, out_channels: int, kernel_size: int, norm: Norm) -> Conv2d:
    if in_channels is None:
        raise ValueError("FPN: bottom_up must state the channels of its features")
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
