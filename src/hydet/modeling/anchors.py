"""Boxes at fixed places, from which detectors regress."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.structures import Boxes, RotatedBoxes

__all__ = ["DefaultAnchorGenerator", "RotatedAnchorGenerator"]

SIZES, ASPECT_RATIOS = (32, 64, 128, 256, 512), (0.5, 1, 2)
ANGLES = (-90, -60, -30, 0, 30, 60, 90)


def _for_each_level(values: Sequence[Any], num_levels: int, name: str) -> list[list[float]]:
    """One list a level, where a flat list or a list of one list stands for all levels."""
    if len(values) == 0:
        raise ValueError(f"{name} must not be empty")
    if not isinstance(values[0], Sequence):
        return [list(values)] * num_levels
    if any(len(v) == 0 for v in values):
        raise ValueError(f"{name} must have a number for every level, got {values}")
    if len(values) == 1:
        return [list(values[0])] * num_levels
    if len(values) != num_levels:
        raise ValueError(f"{name} is given for {len(values)} levels, strides for {num_levels}")
    return [list(v) for v in values]


class _AnchorGenerator(nn.Module):
    """Places the anchors of a cell, which subclasses define, on grids.

    The cells are buffers outside of the state dict: they follow the module to its device, stay float32 in a model of
    another precision, and are computed anew when a model leaves the meta device.
    """

    box_dim: int

    def __init__(self, strides: Sequence[int], offset: float) -> None:
        super().__init__()
        if not 0 <= offset < 1:
            raise ValueError(f"offset must lie in [0, 1), got {offset}")
        self.strides = list(strides)
        self.offset = offset

    def _make_cells(self) -> list[Tensor]:
        raise NotImplementedError

    def _register_cells(self) -> None:
        for i, cell in enumerate(self._make_cells()):
            self.register_buffer(f"cell_anchors_{i}", cell, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        was_meta = any(cell.is_meta for cell in self.cell_anchors)
        super()._apply(fn, recurse)
        cells = self.cell_anchors
        if was_meta or any(cell.dtype != torch.float32 for cell in cells):
            for i, (fresh, cell) in enumerate(zip(self._make_cells(), cells, strict=True)):
                setattr(self, f"cell_anchors_{i}", fresh.to(cell.device))
        return self

    @property
    def cell_anchors(self) -> list[Tensor]:
        """``(A, box_dim)`` anchors of each level around the origin."""
        return [self.get_buffer(f"cell_anchors_{i}") for i in range(len(self.strides))]

    @property
    def num_cell_anchors(self) -> list[int]:
        """Anchors at each place, by level."""
        return [cell.shape[0] for cell in self.cell_anchors]

    @property
    def num_anchors(self) -> list[int]:
        """The same as ``num_cell_anchors``."""
        return self.num_cell_anchors

    def _grid_anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        if len(features) > len(self.strides):
            raise ValueError(
                f"anchors are made for {len(self.strides)} levels, got {len(features)} feature maps"
            )
        found = []
        for feature, stride, cell in zip(features, self.strides, self.cell_anchors, strict=False):
            height, width = feature.shape[-2:]
            x = (torch.arange(width, device=cell.device, dtype=torch.float32) + self.offset) * stride
            y = (torch.arange(height, device=cell.device, dtype=torch.float32) + self.offset) * stride
            y, x = torch.meshgrid(y, x, indexing="ij")
            found.append((self._shifts(x, y)[:, :, None] + cell).reshape(-1, self.box_dim))
        return found

    def _shifts(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


class DefaultAnchorGenerator(_AnchorGenerator):
    """Upright anchors.

    Args:
        sizes: square roots of the areas, in input pixels: a list for each level, or one for all.
        aspect_ratios: height / width, likewise.
        strides: input pixels a cell, one for each level.
        offset: of the first anchor's centre, in strides.

    Nothing of it enters ``state_dict``.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.1.1; Lin et al. 2016 (arXiv:1612.03144), section 4.1.
    """

    box_dim = 4

    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]] | Sequence[float],
        aspect_ratios: Sequence[Sequence[float]] | Sequence[float],
        strides: Sequence[int],
        offset: float = 0.5,
    ) -> None:
        super().__init__(strides, offset)
        self.sizes = _for_each_level(sizes, len(self.strides), "sizes")
        self.aspect_ratios = _for_each_level(aspect_ratios, len(self.strides), "aspect_ratios")
        self._register_cells()

    def _make_cells(self) -> list[Tensor]:
        return [
            self.generate_cell_anchors(*level) for level in zip(self.sizes, self.aspect_ratios, strict=True)
        ]

    def generate_cell_anchors(
        self, sizes: Sequence[float] = SIZES, aspect_ratios: Sequence[float] = ASPECT_RATIOS
    ) -> Tensor:
        """``(len(sizes) * len(aspect_ratios), 4)`` boxes around the origin, sizes varying slowest."""
        boxes = []
        for size, ratio in itertools.product(sizes, aspect_ratios):
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
        return torch.tensor(boxes)

    def _shifts(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y, x, y], dim=2)

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Anchors for feature maps, of which there may be fewer than strides: they are then the first ones.

        Args:
            features: per level, ``(..., H, W)``.

        Returns:
            Per level, ``H * W * A`` boxes in pixels of the padded input, ordered by y, x, size, ratio.

        Raises:
            ValueError: if there are more feature maps than strides.
        """
        return [Boxes(tensor) for tensor in self._grid_anchors(features)]


class RotatedAnchorGenerator(_AnchorGenerator):
    """Rotated anchors (cx, cy, w, h, degrees).

    Args:
        sizes: square roots of the areas, in input pixels: a list for each level, or one for all.
        aspect_ratios: height / width, likewise.
        strides: input pixels a cell, one for each level.
        angles: in degrees counter-clockwise, likewise a list for each level or for all.
        offset: of the first anchor's centre, in strides.

    Source: Ma et al. 2017 (arXiv:1703.01086), section III-C.
    """

    box_dim = 5

    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]] | Sequence[float],
        aspect_ratios: Sequence[Sequence[float]] | Sequence[float],
        strides: Sequence[int],
        angles: Sequence[Sequence[float]] | Sequence[float],
        offset: float = 0.5,
    ) -> None:
        super().__init__(strides, offset)
        self.sizes = _for_each_level(sizes, len(self.strides), "sizes")
        self.aspect_ratios = _for_each_level(aspect_ratios, len(self.strides), "aspect_ratios")
        self.angles = _for_each_level(angles, len(self.strides), "angles")
        self._register_cells()

    def _make_cells(self) -> list[Tensor]:
        levels = zip(self.sizes, self.aspect_ratios, self.angles, strict=True)
        return [self.generate_cell_anchors(*level) for level in levels]

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = SIZES,
        aspect_ratios: Sequence[float] = ASPECT_RATIOS,
        angles: Sequence[float] = ANGLES,
    ) -> Tensor:
        """``(n, 5)`` boxes around the origin, sizes varying slowest and angles fastest."""
        boxes = []
        for size, ratio, angle in itertools.product(sizes, aspect_ratios, angles):
            width = math.sqrt(size**2 / ratio)
            boxes.append([0.0, 0.0, width, ratio * width, float(angle)])
        return torch.tensor(boxes)

    def _shifts(self, x: Tensor, y: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return torch.stack([x, y, zero, zero, zero], dim=2)

    def forward(self, features: Sequence[Tensor]) -> list[RotatedBoxes]:
        """Anchors for feature maps; see ``DefaultAnchorGenerator.forward``.

        Args:
            features: per level, ``(..., H, W)``.

        Returns:
            Per level, ``H * W * A`` boxes, ordered by y, x, size, ratio, angle.
        """
        return [RotatedBoxes(tensor) for tensor in self._grid_anchors(features)]
