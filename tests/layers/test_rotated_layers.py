import pytest
import torch

from hydet.layers import (
    ROIAlign,
    ROIAlignRotated,
    batched_nms,
    batched_nms_rotated,
    nms,
    nms_rotated,
    roi_align_rotated,
)


def random_boxes(count):
    corner = torch.rand(count, 2) * 60 - 20
    return torch.cat([corner, corner + 2 + torch.rand(count, 2) * 30], dim=1)


def upright(boxes):
    """xyxy as (cx, cy, w, h, 0 degrees)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return torch.cat([boxes[:, :2] + size / 2, size, torch.zeros(len(boxes), 1)], dim=1)


def test_rotated_nms_of_upright_boxes_is_nms():
    boxes, scores, groups = random_boxes(40), torch.rand(40), torch.randint(0, 3, (40,))
    assert nms_rotated(upright(boxes), scores, 0.4).tolist() == nms(boxes, scores, 0.4).tolist()
    kept = batched_nms_rotated(upright(boxes), scores, groups, 0.4)
    assert kept.tolist() == batched_nms(boxes, scores, groups, 0.4).tolist()


def test_rotated_nms_of_nothing():
    none = torch.zeros(0, 5)
    assert nms_rotated(none, none[:, 0], 0.5).shape == (0,)
    assert batched_nms_rotated(none, none[:, 0], none[:, 0].long(), 0.5).shape == (0,)


@pytest.mark.parametrize("ratio", [0, 2])
def test_rotated_align_of_upright_boxes_is_align(ratio):
    x, boxes = torch.randn(2, 3, 20, 24), random_boxes(6).clamp(min=1, max=18)
    image = torch.tensor([[0.0], [1], [0], [1], [0], [1]])
    expected = ROIAlign(output_size=(3, 4), spatial_scale=1.0, sampling_ratio=ratio)(
        x, torch.cat([image, boxes], dim=1)
    )
    rois = torch.cat([image, upright(boxes)], dim=1)
    layer = ROIAlignRotated(output_size=(3, 4), spatial_scale=1.0, sampling_ratio=ratio)
    torch.testing.assert_close(layer(x, rois), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(roi_align_rotated(x, rois, (3, 4), 1.0, ratio), layer(x, rois))


def test_half_a_turn_flips_the_region():
    layer = ROIAlignRotated(output_size=4, spatial_scale=1.0, sampling_ratio=2)
    roi = torch.tensor([[0, 9.0, 8.0, 7.0, 5.0, 20.0], [0, 9.0, 8.0, 7.0, 5.0, 200.0]])
    one, other = layer(torch.randn(1, 2, 16, 18), roi)
    torch.testing.assert_close(one, other.flip(1, 2), atol=1e-4, rtol=1e-4)
