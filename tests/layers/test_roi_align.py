import pytest
import torch

from hydet.layers import ROIAlign, ROIAlignRotated, roi_align_rotated


def ramp(height=10, width=12):
    """Return features whose value at each cell is the position (x, y) of its center."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None]


def random_boxes(count):
    corner = torch.rand(count, 2) * 60 - 20
    return torch.cat([corner, corner + 2 + torch.rand(count, 2) * 30], dim=1)


def upright(boxes):
    """Xyxy as (cx, cy, w, h, 0 degrees)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return torch.cat([boxes[:, :2] + size / 2, size, torch.zeros(len(boxes), 1)], dim=1)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_aligned_bins_have_value_of_their_center(ratio, scale):
    layer = ROIAlign(output_size=(2, 3), spatial_scale=scale, sampling_ratio=ratio)
    roi = torch.tensor([[0, 2.0, 3.0, 8.0, 7.0]])
    roi[:, 1:] /= scale
    y = layer(ramp(), roi)
    torch.testing.assert_close(y[0, 0], torch.tensor([3.0, 5, 7]).expand(2, 3))
    torch.testing.assert_close(y[0, 1], torch.tensor([[4.0], [6.0]]).expand(2, 3))


@pytest.mark.parametrize("layer", [ROIAlign, ROIAlignRotated])
def test_scalar_output_size_and_invalid_rois(layer):
    made = layer(output_size=3, spatial_scale=0.25, sampling_ratio=2)
    assert made.output_size == (3, 3) and "spatial_scale=0.25" in repr(made)
    with pytest.raises(ValueError, match="rois must be"):
        made(ramp(), torch.zeros(2, 4))


def test_rois_stay_float32_with_bfloat16_features():
    layer = ROIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=2)
    x = torch.randn(1, 4, 400, 4).bfloat16()
    roi = torch.tensor([[0, 0.0, 333.3, 3, 339.9]])  # bfloat16 would make 334 of 333.3
    y = layer(x, roi)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, layer(x.float(), roi).bfloat16())


@pytest.mark.parametrize("ratio", [0, 2])
def test_rotated_pooling_of_upright_boxes_matches_roi_align(ratio):
    x, boxes = torch.randn(2, 3, 20, 24), random_boxes(6).clamp(min=1, max=18)
    image = torch.tensor([[0.0], [1], [0], [1], [0], [1]])
    expected = ROIAlign(output_size=(3, 4), spatial_scale=1.0, sampling_ratio=ratio)(
        x, torch.cat([image, boxes], dim=1)
    )
    rois = torch.cat([image, upright(boxes)], dim=1)
    layer = ROIAlignRotated(output_size=(3, 4), spatial_scale=1.0, sampling_ratio=ratio)
    torch.testing.assert_close(layer(x, rois), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(roi_align_rotated(x, rois, (3, 4), 1.0, ratio), layer(x, rois))


def test_rotation_by_180_degrees_flips_region():
    layer = ROIAlignRotated(output_size=4, spatial_scale=1.0, sampling_ratio=2)
    roi = torch.tensor([[0, 9.0, 8.0, 7.0, 5.0, 20.0], [0, 9.0, 8.0, 7.0, 5.0, 200.0]])
    region, turned = layer(torch.randn(1, 2, 16, 18), roi)
    torch.testing.assert_close(region, turned.flip(1, 2), atol=1e-4, rtol=1e-4)
