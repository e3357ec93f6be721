"""Anchors: boxes at fixed positions, from which detectors regress."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hydet.modeling.computed_buffers import ComputedBuffers
from hydet.structures import Boxes, RotatedBoxes

__all__ = ["DefaultAnchorGenerator", "RotatedAnchorGenerator", "RoundedAnchorGenerator"]

SIZES, ASPECT_RATIOS = (32, 64, 128, 256, 512), (0.5, 1, 2)
ANGLES = (-90, -60, -30, 0, 30, 60, 90)


def _for_each_level(
    values: Sequence[Sequence[float]] | Sequence[float], num_levels: int, name: str
) -> list[list[float]]:
    """Return one list per level; a flat list, or a list of one list, applies to all levels."""
    if len(values) == 0:
        raise ValueError(f"{name} must not be empty")
    levels = [list(level) for level in values if isinstance(level, Sequence)]
    numbers = [number for number in values if not isinstance(number, Sequence)]
    if levels and numbers:
        raise ValueError(f"{name} must be a list of numbers or a list of lists, got {values}")
    if numbers:
        return [numbers] * num_levels
    if any(len(level) == 0 for level in levels):
        raise ValueError(f"{name} must have a number for every level, got {values}")
    if len(levels) == 1:
        return levels * num_levels
    if len(levels) != num_levels:
        raise ValueError(f"{name} has {len(levels)} levels, strides has {num_levels}")
    return levels


class _AnchorGenerator(ComputedBuffers):
    """Base of anchor generators: places the anchors of a cell, which subclasses define, on the grid of each level.

    The anchors of a cell are buffers outside the state dict. They follow the module to its device, stay float32 in a
    model of another precision, and are computed again when a model leaves the meta device.
    """

    box_dim: int

    def __init__(self, strides: Sequence[int], offset: float) -> None:
        super().__init__()
        if not 0 <= offset < 1:
            raise ValueError(f"offset must lie in [0, 1), got {offset}")
        self.strides = list(strides)
        self.offset = offset

    @abstractmethod
    def _make_cells(self) -> list[Tensor]:
        """Return the anchors of a cell of each level, around the origin."""

    def _register_cells(self) -> None:
        self.register_computed_buffers()

    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return the anchors of a cell of each level."""
        return {f"cell_anchors_{i}": cell for i, cell in enumerate(self._make_cells())}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        cells = self.cell_anchors
        if any(cell.dtype != torch.float32 for cell in cells):
            for i, (exact, cell) in enumerate(zip(self._make_cells(), cells, strict=True)):
                setattr(self, f"cell_anchors_{i}", exact.to(cell.device))
        return self

    @property
    def cell_anchors(self) -> list[Tensor]:
        """Anchors of a cell, ``(A, box_dim)`` per level, around the origin."""
        return [self.get_buffer(f"cell_anchors_{i}") for i in range(len(self.strides))]

    @property
    def num_cell_anchors(self) -> list[int]:
        """Number of anchors per cell, by level."""
        return [cell.shape[0] for cell in self.cell_anchors]

    @property
    def num_anchors(self) -> list[int]:
        """Number of anchors per cell, by level; equal to ``num_cell_anchors``."""
        return self.num_cell_anchors

    def _grid_anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        if len(features) > len(self.strides):
            raise ValueError(
                f"anchors are defined for {len(self.strides)} levels, got {len(features)} feature maps"
            )
        anchors = []
        steps = self._steps(features)
        for feature, (step_y, step_x), cell in zip(features, steps, self.cell_anchors, strict=False):
            height, width = feature.shape[-2:]
            x = (torch.arange(width, device=cell.device, dtype=torch.float32) + self.offset) * step_x
            y = (torch.arange(height, device=cell.device, dtype=torch.float32) + self.offset) * step_y
            y, x = torch.meshgrid(y, x, indexing="ij")
            anchors.append((self._shifts(x, y)[:, :, None] + cell).reshape(-1, self.box_dim))
        return anchors

    def _steps(self, features: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Return the distance between cells along y and x in input pixels, per level."""
        return [(stride, stride) for stride in self.strides]

    @abstractmethod
    def _shifts(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the ``(H, W, box_dim)`` offsets of the anchors in cells whose centers are x and y, ``(H, W)`` each."""


class DefaultAnchorGenerator(_AnchorGenerator):
    """Upright anchors.

    Args:
        sizes: square roots of the areas in input pixels: one list per level, or one list for all levels.
        aspect_ratios: height / width: one list per level, or one list for all levels.
        strides: input pixels per cell, one number per level.
        offset: center of the first anchor, in strides.

    Raises:
        ValueError: if ``offset`` is not in [0, 1), or the lists do not fit ``strides``.

    The anchors are not part of the state dict.

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
        """Return ``(len(sizes) * len(aspect_ratios), 4)`` boxes around the origin; sizes vary slowest."""
        boxes = []
        for size, ratio in itertools.product(sizes, aspect_ratios):
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
        return torch.tensor(boxes)

    def _shifts(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y, x, y], dim=2)

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Compute the anchors of feature maps. If there are fewer maps than strides, the first strides apply.

        Args:
            features: per level, ``(..., H, W)``.

        Returns:
            Per level, ``H * W * A`` boxes in pixels of the padded input, ordered by y, x, size, ratio.

        Raises:
            ValueError: if there are more feature maps than strides.
        """
        return [Boxes(tensor) for tensor in self._grid_anchors(features)]


class RoundedAnchorGenerator(DefaultAnchorGenerator):
    """Upright anchors of torchvision's detectors: corners in whole pixels, and distances measured from the maps.

    A level of stride 128 has ``ceil(size / 128)`` cells, which torchvision spreads at ``size // cells`` pixels. They
    are closer than the stride where it does not divide the padded image, which is padded to the finest levels only.

    Args:
        **kwargs: arguments of ``DefaultAnchorGenerator``. The first stride must divide the sides of padded images.
    """

    def generate_cell_anchors(
        self, sizes: Sequence[float] = SIZES, aspect_ratios: Sequence[float] = ASPECT_RATIOS
    ) -> Tensor:
        """Return ``(len(sizes) * len(aspect_ratios), 4)`` whole numbers around the origin; sizes vary slowest."""
        return super().generate_cell_anchors(sizes, aspect_ratios).round()

    def _steps(self, features: Sequence[Tensor]) -> list[tuple[int, int]]:
        if len(features) == 0:
            return []
        height, width = (side * self.strides[0] for side in features[0].shape[-2:])
        return [(height // feature.shape[-2], width // feature.shape[-1]) for feature in features]


class RotatedAnchorGenerator(_AnchorGenerator):
    """Rotated anchors (cx, cy, w, h, degrees).

    Args:
        sizes: square roots of the areas in input pixels: one list per level, or one list for all levels.
        aspect_ratios: height / width: one list per level, or one list for all levels.
        strides: input pixels per cell, one number per level.
        angles: degrees counter-clockwise: one list per level, or one list for all levels.
        offset: center of the first anchor, in strides.

    Raises:
        ValueError: if ``offset`` is not in [0, 1), or the lists do not fit ``strides``.

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
        """Return ``(A, 5)`` boxes around the origin; sizes vary slowest and angles fastest."""
        boxes = []
        for size, ratio, angle in itertools.product(sizes, aspect_ratios, angles):
            width = math.sqrt(size**2 / ratio)
            boxes.append([0.0, 0.0, width, ratio * width, float(angle)])
        return torch.tensor(boxes)

    def _shifts(self, x: Tensor, y: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return torch.stack([x, y, zero, zero, zero], dim=2)

    def forward(self, features: Sequence[Tensor]) -> list[RotatedBoxes]:
        """Compute the anchors of feature maps; see ``DefaultAnchorGenerator.forward``.

        Args:
            features: per level, ``(..., H, W)``.

        Returns:
            Per level, ``H * W * A`` boxes, ordered by y, x, size, ratio, angle.
        """
        return [RotatedBoxes(tensor) for tensor in self._grid_anchors(features)]
