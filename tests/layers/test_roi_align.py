import pytest
import torch

from hydet.layers import ROIAlign, ROIAlignRotated


def ramp(height=10, width=12):
    """Features whose value is their own position: (x, y) of the cell's centre."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None]


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_aligned_bins_have_the_value_of_their_centre(ratio, scale):
    layer = ROIAlign(output_size=(2, 3), spatial_scale=scale, sampling_ratio=ratio)
    roi = torch.tensor([[0, 2.0, 3.0, 8.0, 7.0]])
    roi[:, 1:] /= scale
    y = layer(ramp(), roi)
    torch.testing.assert_close(y[0, 0], torch.tensor([3.0, 5, 7]).expand(2, 3))
    torch.testing.assert_close(y[0, 1], torch.tensor([[4.0], [6.0]]).expand(2, 3))


@pytest.mark.parametrize("layer", [ROIAlign, ROIAlignRotated])
def test_layers_take_one_number_and_refuse_other_rois(layer):
    made = layer(output_size=3, spatial_scale=0.25, sampling_ratio=2)
    assert made.output_size == (3, 3) and "spatial_scale=0.25" in repr(made)
    with pytest.raises(ValueError, match="rois must be"):
        made(ramp(), torch.zeros(2, 4))


def test_regions_keep_their_precision_beside_bfloat16_features():
    layer = ROIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=2)
    x = torch.randn(1, 4, 400, 4).bfloat16()
    roi = torch.tensor([[0, 0.0, 333.3, 3, 339.9]])  # bfloat16 would make 334 of 333.3
    y = layer(x, roi)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, layer(x.float(), roi).bfloat16())
