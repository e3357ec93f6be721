"""Pooling of regions to a fixed size, each from the pyramid level that fits the size of the region."""

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
    """Assign each box to a pyramid level by its area.

    Args:
        box_lists: boxes of each image, M over all images.
        min_level: index of the finest level; level k has stride ``2**k``.
        max_level: index of the coarsest level.
        canonical_box_size: side in pixels of the square box that is assigned to ``canonical_level``. 224 is the size of
            the images that backbones are pretrained on.
        canonical_level: index of that level; a box with twice the side is assigned to the next coarser level. 4 is the
            level of C4, stride 16, from which a detector without a pyramid pools all boxes.

    Returns:
        ``(M,)`` int64 positions of the levels, 0 for ``min_level``. Boxes beyond the range are assigned to the finest or
        coarsest level, boxes without area to the finest.

    Source: Lin et al. 2017 (arXiv:1612.03144), equation 1.
    """
    area = torch.cat([boxes.area() for boxes in box_lists])
    return _levels_of_area(area, min_level, max_level, canonical_box_size, canonical_level)


def _levels_of_area(
    area: Tensor, min_level: int, max_level: int, canonical_box_size: int, canonical_level: int
) -> Tensor:
    side = area.nan_to_num(nan=0.0).clamp(min=0).sqrt()
    level = torch.floor(canonical_level + torch.log2(side / canonical_box_size + 1e-8))
    return level.clamp(min_level, max_level).to(torch.int64) - min_level


def convert_boxes_to_pooler_format(box_lists: Sequence[Boxes]) -> Tensor:
    """Concatenate the boxes of N images, M over all images, and prepend the index of the image to each.

    Args:
        box_lists: boxes of each image.

    Returns:
        ``(M, 5)`` as (image, x1, y1, x2, y2), or ``(M, 6)`` for rotated boxes.
    """
    return torch.cat([F.pad(boxes.tensor, (1, 0), value=float(i)) for i, boxes in enumerate(box_lists)])


class ROIPooler(nn.Module):
    """Pools regions from one or more feature maps.

    Args:
        output_size: (height, width) of the pooled features in cells, or one number for both.
        scales: ratio of the feature map's resolution to that of the input, per level. Scales of several levels are
            powers of 2, each half of the previous one.
        sampling_ratio: sampling points per output cell and axis of the ``ROIAlign`` types; 0 adapts to the size of the
            region.
        pooler_type: ``ROIAlign`` (legacy, shifted by half a pixel), ``ROIAlignV2``, ``ROIPool`` or ``ROIAlignRotated``.
        canonical_box_size: side in pixels of the box that is pooled from ``canonical_level``; see
            ``assign_boxes_to_levels``.
        canonical_level: index of that level; level k has stride ``2**k``.

    Raises:
        ValueError: if an argument is out of range, or ``scales`` do not form a pyramid.
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
                f"canonical_box_size and canonical_level must be positive, got {canonical_box_size} and {canonical_level}"
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
        """Pool the features of each box.

        Args:
            x: feature maps ``(N, C, H_l, W_l)``, one per scale.
            box_lists: boxes of each of the N images in pixels of the input, M over all images; ``RotatedBoxes`` for
                ``ROIAlignRotated``.

        Returns:
            ``(M, C, *output_size)``, image by image. The result is connected to every feature map, even without boxes.

        Raises:
            ValueError: if the number of feature maps differs from that of the scales, or the number of images from that
                of ``box_lists``.
        """
        if len(x) != len(self.scales):
            raise ValueError(
                f"ROIPooler: expected {len(self.scales)} feature maps, one per scale; got {len(x)}"
            )
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(
                f"ROIPooler: got features of {x[0].shape[0]} images, but boxes of {len(box_lists)} images"
            )
        if len(box_lists) == 0:
            return sum((level.sum() * 0 for level in x), x[0].new_zeros(0, x[0].shape[1], *self.output_size))
        return self.pool(x, convert_boxes_to_pooler_format(box_lists))

    def pool(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pool the features of each region.

        Args:
            x: feature maps ``(N, C, H_l, W_l)``, one per scale.
            rois: ``(M, 5)`` as (image, x1, y1, x2, y2) in pixels of the input, or ``(M, 6)`` rotated.

        Returns:
            ``(M, C, *output_size)``.
        """
        if len(x) == 1:
            pooled: Tensor = self.level_poolers[0](x[0], rois)
            return pooled
        boxes = rois[:, 1:]
        sides = boxes[:, 2:] - boxes[:, :2] if boxes.shape[1] == 4 else boxes[:, 2:4]
        levels = _levels_of_area(
            sides.prod(dim=1), self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        if self.pooler_type == "ROIPool":
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
        # Sorted by level, the boxes need one host synchronization, for the number of boxes per level.
        order = levels.argsort(stable=True)
        counts = (levels == torch.arange(len(x), device=levels.device)[:, None]).sum(dim=1).tolist()
        parts = zip(self.level_poolers, x, rois[order].split(counts), strict=True)
        pooled = torch.cat([pool(level, part) for pool, level, part in parts])
        return torch.empty_like(pooled).index_copy(0, order, pooled)

    def extra_repr(self) -> str:
        """Return the settings that the printed module shows besides its level poolers."""
        return f"canonical_box_size={self.canonical_box_size}, canonical_level={self.canonical_level}"


class _ROIPool(nn.Module):
    """Maximum of each cell (Girshick 2015, arXiv:1504.08083), computed in float32."""

    def __init__(self, output_size: tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        pooled: Tensor = roi_pool(x, rois.to(x.dtype), self.output_size, self.spatial_scale)
        return pooled.to(input.dtype)

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
    """Return the finest and coarsest level of a pyramid, from checked scales."""
    if not scales or any(scale <= 0 for scale in scales):
        raise ValueError(f"ROIPooler needs at least one scale, all positive; got {list(scales)}")
    exact = [-math.log2(scale) for scale in scales]  # a single map may have any scale; its level is not used
    levels = [round(level) for level in exact]
    if len(scales) > 1:
        if any(abs(a - b) > 1e-3 for a, b in zip(exact, levels, strict=True)):
            raise ValueError(f"ROIPooler: scales of several levels must be powers of 2, got {list(scales)}")
        if levels != list(range(levels[0], levels[0] + len(levels))):
            raise ValueError(f"ROIPooler: scales must halve from one level to the next, got {list(scales)}")
    return levels[0], levels[-1]
