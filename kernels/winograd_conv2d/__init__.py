"""3 x 3 convolution by Winograd's minimal filtering."""

from hydet.kernels.winograd_conv2d.op import (
    transform_winograd_weight,
    winograd_conv2d,
    winograd_conv2d_transformed,
)

__all__ = ["transform_winograd_weight", "winograd_conv2d", "winograd_conv2d_transformed"]
