"""Pooling from all levels of a feature pyramid, compared with the layers for one feature map."""

import pytest
import torch

from hydet.layers import ROIAlign, ROIAlignRotated
from hydet.layers.region_ops import pyramid_roi_align, pyramid_roi_align_rotated

SCALES = [0.5, 0.25]


def pool_levels(layer, features, rois, levels):
    """Pool each region from its level with one layer per level."""
    pooled = torch.zeros(len(rois), 3, 2, 2)
    for level, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        pool = layer(output_size=2, spatial_scale=scale, sampling_ratio=2)
        pooled[levels == level] = pool(feature, rois[levels == level])
    return pooled


@pytest.mark.parametrize(
    ("layer", "op", "numbers"),
    [(ROIAlign, pyramid_roi_align, [4.0, 6, 30, 20]), (ROIAlignRotated, pyramid_roi_align_rotated, [20.0, 15, 18, 12, 30])],
)  # fmt: skip
def test_each_region_is_pooled_from_its_level(layer, op, numbers):
    features = [torch.randn(2, 3, 20, 24), torch.randn(2, 3, 10, 12)]
    levels = torch.tensor([0, 1, 1, 0])
    rois = torch.tensor([[image, *numbers] for image in (0, 0, 1, 1)])
    pooled = op(features, rois, output_size=(2, 2), spatial_scales=SCALES, levels=levels, sampling_ratio=2)
    torch.testing.assert_close(pooled, pool_levels(layer, features, rois, levels))


@pytest.mark.parametrize(("op", "columns"), [(pyramid_roi_align, 5), (pyramid_roi_align_rotated, 6)])
def test_several_levels_need_the_level_of_each_region(op, columns):
    features = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4)]
    with pytest.raises(ValueError, match="need the level of each region"):
        op(features, torch.zeros(2, columns), output_size=(2, 2), spatial_scales=SCALES)
