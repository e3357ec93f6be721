"""Feature pyramids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, c2_xavier_fill, get_norm

from .backbone import Backbone

__all__ = ["FPN", "LastLevelMaxPool", "LastLevelP6P7"]


class FPN(Backbone):
    """Top-down pathway with lateral connections over the maps of another backbone.

    Args:
        bottom_up: gives the maps.
        in_features: names of neighbouring maps, high to low resolution, each of half the former's resolution.
            ``None`` takes all that ``bottom_up`` gives.
        out_channels: of every level.
        norm: of the convolutions, see ``get_norm``.
        top_block: adds coarser levels; has ``in_feature``, one of the bottom-up or pyramid maps, and ``num_levels``.
        fuse_type: ``"sum"`` or ``"avg"`` of the lateral and the upsampled map.
        square_pad: pad inputs to a square of this side; 0 for no wish.

    Levels are called ``p<log2 of the stride>``.

    Source: Lin et al. 2016 (arXiv:1612.03144).
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str] | None,
        out_channels: int,
        norm: str | Callable[[int], nn.Module] | None = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"FPN: fuse_type must be 'sum' or 'avg', got {fuse_type!r}")
        shapes = bottom_up.output_shape()
        names = list(shapes) if in_features is None else list(in_features)
        missing = [name for name in names if name not in shapes]
        if missing or not names:
            raise ValueError(
                f"FPN: in_features has {missing or 'nothing'}; {type(bottom_up).__name__} produces {list(shapes)}"
            )
        strides = [shapes[name].stride for name in names]
        for fine, coarse in zip(strides, strides[1:], strict=False):
            if coarse != 2 * fine:
                raise ValueError(f"FPN: strides must double from level to level, got {strides} for {names}")

        use_bias = norm in ("", None)
        stages = [int(math.log2(stride)) for stride in strides]
        for name, stage in zip(names, stages, strict=True):
            lateral = Conv2d(
                shapes[name].channels,
                out_channels,
                kernel_size=1,
                bias=use_bias,
                norm=get_norm(norm, out_channels),
            )
            output = Conv2d(
                out_channels,
                out_channels,
                kernel_size=3,
                padding=1,
                bias=use_bias,
                norm=get_norm(norm, out_channels),
            )
            c2_xavier_fill(lateral)
            c2_xavier_fill(output)
            self.add_module(f"fpn_lateral{stage}", lateral)
            self.add_module(f"fpn_output{stage}", output)
        self.bottom_up = bottom_up
        self.top_block = top_block
        self.in_features = tuple(names)
        self.fuse_type = fuse_type
        self._stages = stages
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

        self._out_feature_strides = {f"p{s}": 2**s for s in stages}
        if top_block is not None:
            for i in range(top_block.num_levels):  # type: ignore[arg-type]
                stage = stages[-1] + i + 1
                self._out_feature_strides[f"p{stage}"] = 2**stage
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        if top_block is not None and top_block.in_feature not in (*shapes, *self._out_features):
            raise ValueError(
                f"FPN: top_block reads {top_block.in_feature!r}, which is neither in {list(shapes)} "
                f"nor in {self._out_features}"
            )

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(B, C, H, W)`` images to ``p<n>``, high to low resolution; H and W multiples of ``size_divisibility``."""
        bottom_up = self.bottom_up(x)
        levels: list[Tensor] = []
        above: Tensor | None = None
        for name, stage in zip(reversed(self.in_features), reversed(self._stages), strict=True):
            merged = getattr(self, f"fpn_lateral{stage}")(bottom_up[name])
            if above is not None:
                merged = merged + F.interpolate(above, scale_factor=2.0, mode="nearest")
                if self.fuse_type == "avg":
                    merged = merged / 2
            levels.insert(0, getattr(self, f"fpn_output{stage}")(merged))
            above = merged
        if self.top_block is not None:
            name = self.top_block.in_feature
            source = bottom_up[name] if name in bottom_up else levels[self._out_features.index(name)]  # type: ignore[index,arg-type]
            levels.extend(self.top_block(source))
        return dict(zip(self._out_features, levels, strict=True))


class LastLevelMaxPool(nn.Module):
    """Subsamples ``p5`` by two to ``p6``, as in the original pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class LastLevelP6P7(nn.Module):
    """Two more levels by strided convolutions, for dense detectors.

    Args:
        in_channels: of the map it reads.
        out_channels: of ``p6`` and ``p7``.
        in_feature: name of the map it reads.

    Source: Lin et al. 2017 (arXiv:1708.02002), footnote 2.
    """

    def __init__(self, *, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, c5: Tensor) -> list[Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]
