"""Regions of feature maps at a fixed size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from hydet import kernels

__all__ = ["ROIAlign", "ROIAlignRotated", "roi_align", "roi_align_rotated"]


def roi_align_rotated(
    input: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """``ROIAlignRotated`` as a function; see there."""
    if rois.ndim != 2 or rois.shape[1] != 6:
        raise ValueError(f"rois must be (R, 6), got {tuple(rois.shape)}")
    return kernels.roi_align_rotated(
        [input],
        rois,
        output_size=_pair(output_size),
        spatial_scales=[spatial_scale],
        sampling_ratio=sampling_ratio,
    )


class ROIAlign(nn.Module):
    """Bilinear sampling of upright regions (He et al. 2017, arXiv:1703.06870).

    Args:
        output_size: (height, width) of the output, or one number for both.
        spatial_scale: feature cells an input pixel.
        sampling_ratio: samples a cell and axis; 0 for as many as the region's size asks for.
        aligned: shift by half a cell, so that pixel centres are where they belong. Otherwise regions count as at
            least one cell wide and high.
    """

    def __init__(
        self,
        *,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = _pair(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Sample.

        Args:
            input: ``(N, C, H, W)`` features.
            rois: ``(R, 5)`` as (image index, x1, y1, x2, y2) in pixels. They keep their precision where the
                features are bfloat16 or half.

        Returns:
            ``(R, C, h, w)`` of the features' dtype.

        Raises:
            ValueError: if ``rois`` has another shape.
        """
        if rois.ndim != 2 or rois.shape[1] != 5:
            raise ValueError(f"rois must be (R, 5), got {tuple(rois.shape)}")
        if not torch.compiler.is_exporting():
            return kernels.roi_align(
                [input],
                rois,
                output_size=self.output_size,
                spatial_scales=[self.spatial_scale],
                sampling_ratio=self.sampling_ratio,
                aligned=self.aligned,
            )
        # Exchange formats have torchvision's op, which rounds regions to the dtype of the features.
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        pooled = roi_align(
            x, rois.to(x.dtype), self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )
        return pooled.to(input.dtype)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


class ROIAlignRotated(nn.Module):
    """Bilinear sampling of rotated regions (Ma et al. 2017, arXiv:1703.01086), always aligned.

    Args:
        output_size: (height, width) of the output, or one number for both.
        spatial_scale: feature cells an input pixel.
        sampling_ratio: samples a cell and axis; 0 for as many as the region's size asks for.
    """

    def __init__(
        self, *, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int
    ) -> None:
        super().__init__()
        self.output_size = _pair(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Sample.

        Args:
            input: ``(N, C, H, W)`` features.
            rois: ``(R, 6)`` as (image index, cx, cy, w, h, degrees counter-clockwise), lengths in pixels.

        Returns:
            ``(R, C, h, w)``.

        Raises:
            ValueError: if ``rois`` has another shape.
        """
        return roi_align_rotated(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}"
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
