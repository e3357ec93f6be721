"""RoIAlign for upright and rotated regions, on one feature map."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import roi_align

from hydet import kernels

from .tensor_ops import as_pair

__all__ = ["ROIAlign", "ROIAlignRotated", "roi_align", "roi_align_rotated"]


def roi_align_rotated(
    input: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Pool rotated regions by bilinear sampling; see :class:`ROIAlignRotated` for the arguments.

    Raises:
        ValueError: if ``rois`` is not ``(R, 6)``.
    """
    if rois.ndim != 2 or rois.shape[1] != 6:
        raise ValueError(f"rois must be (R, 6), got {tuple(rois.shape)}")
    return kernels.roi_align_rotated(
        [input],
        rois,
        output_size=as_pair(output_size),
        spatial_scales=[spatial_scale],
        sampling_ratio=sampling_ratio,
    )


class ROIAlign(nn.Module):
    """Pool upright regions by bilinear sampling (He et al. 2017, arXiv:1703.06870).

    Args:
        output_size: ``(height, width)`` of the output, or one number for both.
        spatial_scale: feature cells per input pixel.
        sampling_ratio: samples per output bin and axis; 0 takes one sample per feature cell that the bin spans.
        aligned: shift regions by half a cell, so that the centers of pixels and cells coincide. Without the shift,
            regions are at least one cell wide and high, as in the first implementation.
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
        self.output_size = as_pair(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool each region.

        Args:
            input: ``(N, C, H, W)`` features.
            rois: ``(R, 5)`` as ``(image index, x1, y1, x2, y2)`` in pixels; used in float32 even if the features are
                bfloat16 or float16.

        Returns:
            ``(R, C, h, w)`` in the dtype of the features.

        Raises:
            ValueError: if the shape of ``rois`` is wrong.
        """
        if rois.ndim != 2 or rois.shape[1] != 5:
            raise ValueError(f"rois must be (R, 5), got {tuple(rois.shape)}")
        return kernels.roi_align(
            [input],
            rois,
            output_size=self.output_size,
            spatial_scales=[self.spatial_scale],
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


class ROIAlignRotated(nn.Module):
    """Pool rotated regions by bilinear sampling (Ma et al. 2017, arXiv:1703.01086), always aligned.

    Args:
        output_size: ``(height, width)`` of the output, or one number for both.
        spatial_scale: feature cells per input pixel.
        sampling_ratio: samples per output bin and axis; 0 takes one sample per feature cell that the bin spans.
    """

    def __init__(
        self, *, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int
    ) -> None:
        super().__init__()
        self.output_size = as_pair(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool each region.

        Args:
            input: ``(N, C, H, W)`` features.
            rois: ``(R, 6)`` as ``(image index, cx, cy, w, h, angle)``, lengths in pixels, angles in degrees
                counter-clockwise.

        Returns:
            ``(R, C, h, w)`` in the dtype of the features.

        Raises:
            ValueError: if the shape of ``rois`` is wrong.
        """
        return roi_align_rotated(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}"
        )
