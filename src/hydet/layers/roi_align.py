"""Regions of feature maps at a fixed size."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import roi_align

__all__ = ["ROIAlign", "ROIAlignRotated", "roi_align"]


class ROIAlign(nn.Module):
    """Bilinear sampling of upright regions (He et al. 2017, arXiv:1703.06870).

    Args:
        output_size: (height, width) of the output, or one number for both.
        spatial_scale: feature cells an input pixel.
        sampling_ratio: samples a cell and axis; 0 for as many as the region's size asks for.
        aligned: shift by half a cell, so that pixel centres are where they belong.
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
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C, H, W)`` features and ``(R, 5)`` regions (image index, x1, y1, x2, y2) to ``(R, C, h, w)``."""
        if rois.ndim != 2 or rois.shape[1] != 5:
            raise ValueError(f"rois must be (R, 5), got {tuple(rois.shape)}")
        return roi_align(
            input,
            rois.to(input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"


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
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C, H, W)`` features and ``(R, 6)`` regions (image index, cx, cy, w, h, degrees) to ``(R, C, h, w)``."""
        from hydet import kernels

        if rois.ndim != 2 or rois.shape[1] != 6:
            raise ValueError(f"rois must be (R, 6), got {tuple(rois.shape)}")
        return kernels.roi_align_rotated(
            [input],
            rois.to(input.dtype),
            output_size=self.output_size,
            spatial_scales=[self.spatial_scale],
            sampling_ratio=self.sampling_ratio,
        )

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
