"""Regions of a feature pyramid at a fixed size, each read from the level that suits its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_pool

from hydet.layers import ROIAlign, ROIAlignRotated
from hydet.layers.region_ops import pyramid_roi_align, pyramid_roi_align_rotated
from hydet.structures import Boxes

__all__ = ["ROIPooler", "assign_boxes_to_levels", "convert_boxes_to_pooler_format"]

POOLER_TYPES = ("ROIAlign", "ROIAlignV2", "ROIAlignRotated", "ROIPool")


def assign_boxes_to_levels(
    box_lists: Sequence[Boxes],
    min_level: int,
    max_level: int,
    canonical_box_size: int,
    canonical_level: int,
) -> Tensor:
    """Pick a level of the pyramid for each box by its area.

    Args:
        box_lists: boxes of each image, M in all.
        min_level: finest level; level k has stride ``2**k``.
        max_level: coarsest level.
        canonical_box_size: side in pixels of a square box that belongs to ``canonical_level``.
        canonical_level: a box of twice that side belongs one level higher.

    Returns:
        ``(M,)`` int64, counted from ``min_level``. Boxes too small or too large go to the nearest level, boxes without
        area to the finest.

    Source: Lin et al. 2017 (arXiv:1612.03144), equation 1.
    """
    area = torch.cat([boxes.area() for boxes in box_lists])
    side = area.nan_to_num(nan=0.0).clamp(min=0).sqrt()
    level = torch.floor(canonical_level + torch.log2(side / canonical_box_size + 1e-8))
    return level.clamp(min_level, max_level).to(torch.int64) - min_level


def convert_boxes_to_pooler_format(box_lists: Sequence[Boxes]) -> Tensor:
    """Join the boxes of N images, M in all, with the number of their image in front.

    Returns:
        ``(M, 5)`` as (image, x1, y1, x2, y2), or ``(M, 6)`` for rotated boxes.
    """
    return torch.cat([F.pad(boxes.tensor, (1, 0), value=float(i)) for i, boxes in enumerate(box_lists)])


class ROIPooler(nn.Module):
    """Pools boxes from one or more feature maps.

    Args:
        output_size: (height, width) of the result, or one number for both.
        scales: feature cells an input pixel of each level. Several must halve from one to the next and be powers of 2.
        sampling_ratio: samples a cell and axis of the ``ROIAlign`` types; 0 for as many as the box asks for.
        pooler_type: ``ROIAlign`` (legacy, half a cell off), ``ROIAlignV2``, ``ROIPool``, or ``ROIAlignRotated``.
        canonical_box_size: see ``assign_boxes_to_levels``.
        canonical_level: likewise.

    Raises:
        ValueError: if an argument is not one of these.
    """

    def __init__(
        self,
        *,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        if len(size) != 2 or any(side < 1 for side in size):
            raise ValueError(f"output_size must be one or two positive numbers, got {output_size}")
        if canonical_box_size <= 0 or canonical_level <= 0:
            raise ValueError(
                f"canonical size and level must be positive, got {canonical_box_size} and {canonical_level}"
            )
        if pooler_type not in POOLER_TYPES:
            raise ValueError(f"pooler_type must be one of {', '.join(POOLER_TYPES)}, got {pooler_type!r}")
        self.output_size = (int(size[0]), int(size[1]))
        self.scales = tuple(float(scale) for scale in scales)
        self.min_level, self.max_level = _level_range(self.scales)
        self.sampling_ratio = sampling_ratio
        self.pooler_type = pooler_type
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        self.level_poolers = nn.ModuleList(
            _make_pooler(pooler_type, self.output_size, scale, sampling_ratio) for scale in self.scales
        )

    def forward(self, x: Sequence[Tensor], box_lists: Sequence[Boxes]) -> Tensor:
        """Pool.

        Args:
            x: feature maps ``(N, C, H, W)``, one for each scale.
            box_lists: boxes of each of the N images in pixels of the input, M in all; ``RotatedBoxes`` for
                ``ROIAlignRotated``.

        Returns:
            ``(M, C, *output_size)``, image after image. It is connected to every feature map, also without boxes.

        Raises:
            ValueError: if the numbers of maps or images do not fit.
        """
        if len(x) != len(self.scales):
            raise ValueError(f"ROIPooler has {len(self.scales)} scales, but got {len(x)} feature maps")
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(f"features of {x[0].shape[0]} images, but boxes of {len(box_lists)}")
        if len(box_lists) == 0:
            return sum((level.sum() * 0 for level in x), x[0].new_zeros(0, x[0].shape[1], *self.output_size))
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        if (
            self.pooler_type == "ROIPool" or torch.compiler.is_exporting()
        ):  # exchange formats know one level at a time
            return self._pool_level_by_level(x, rois, levels)
        if self.pooler_type == "ROIAlignRotated":
            return pyramid_roi_align_rotated(
                x,
                rois,
                output_size=self.output_size,
                spatial_scales=self.scales,
                levels=levels,
                sampling_ratio=self.sampling_ratio,
            )
        return pyramid_roi_align(
            x,
            rois,
            output_size=self.output_size,
            spatial_scales=self.scales,
            levels=levels,
            sampling_ratio=self.sampling_ratio,
            aligned=self.pooler_type == "ROIAlignV2",
        )

    def _pool_level_by_level(self, x: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        # Boxes sorted by level, so that the device is waited for once, for the number on each level.
        order = levels.argsort(stable=True)
        counts = (levels == torch.arange(len(x), device=levels.device)[:, None]).sum(dim=1).tolist()
        parts = zip(self.level_poolers, x, rois[order].split(counts), strict=True)
        pooled = torch.cat([pool(level, part) for pool, level, part in parts])
        return torch.empty_like(pooled).index_copy(0, order, pooled)

    def extra_repr(self) -> str:
        return f"canonical_box_size={self.canonical_box_size}, canonical_level={self.canonical_level}"


class _ROIPool(nn.Module):
    """The highest value of each cell (Girshick 2015, arXiv:1504.08083)."""

    def __init__(self, output_size: tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        return roi_pool(x, rois.to(x.dtype), self.output_size, self.spatial_scale).to(input.dtype)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


def _make_pooler(
    pooler_type: str, output_size: tuple[int, int], scale: float, sampling_ratio: int
) -> nn.Module:
    if pooler_type == "ROIPool":
        return _ROIPool(output_size, scale)
    if pooler_type == "ROIAlignRotated":
        return ROIAlignRotated(output_size=output_size, spatial_scale=scale, sampling_ratio=sampling_ratio)
    return ROIAlign(
        output_size=output_size,
        spatial_scale=scale,
        sampling_ratio=sampling_ratio,
        aligned=pooler_type == "ROIAlignV2",
    )


def _level_range(scales: Sequence[float]) -> tuple[int, int]:
    """Finest and coarsest level of a pyramid; of a single map the level does not matter."""
    if not scales or any(scale <= 0 for scale in scales):
        raise ValueError(f"scales must be positive, and at least one, got {list(scales)}")
    exact = [-math.log2(scale) for scale in scales]
    levels = [round(level) for level in exact]
    if len(scales) > 1:
        if any(abs(a - b) > 1e-3 for a, b in zip(exact, levels, strict=True)):
            raise ValueError(f"scales of several levels must be powers of 2, got {list(scales)}")
        if levels != list(range(levels[0], levels[0] + len(levels))):
            raise ValueError(f"scales must halve from one level to the next, got {list(scales)}")
    return levels[0], levels[-1]
