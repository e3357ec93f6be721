"""Images that show the ground truth beside what a model predicts while it trains."""

import pytest
import torch

from hydet.visualization import (
    draw_boxes_beside_ground_truth,
    draw_labels_beside_ground_truth,
    draw_masks_beside_ground_truth,
)

NO_BOXES = torch.zeros(0, 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_boxes_on_images_with_any_number_of_channels(channels):
    image = torch.arange(channels)[:, None, None].expand(channels, 30, 40) * 10.0
    drawn = draw_boxes_beside_ground_truth(image, torch.tensor([[5.0, 5, 20, 20]]), NO_BOXES, bgr=True)
    assert drawn.shape == (3, 30, 80) and drawn.dtype == torch.uint8
    assert drawn[:, 0, 0].tolist() == ([20, 10, 0] if channels >= 3 else [0, 0, 0])
    assert drawn[:, 5, 10].tolist() == [0, 255, 0]  # the box
    assert torch.equal(drawn[:, :, 40:], drawn[:, :1, :1].expand(3, 30, 40))


def test_boxes_without_area_are_not_drawn():
    image = torch.zeros(3, 20, 20)
    drawn = draw_boxes_beside_ground_truth(image, torch.tensor([[5.0, 5, 5, 9]]), NO_BOXES)
    assert not drawn.any()


def test_rotated_boxes_keep_their_angle():
    image = torch.zeros(3, 60, 60)
    upright = draw_boxes_beside_ground_truth(image, torch.tensor([[20.0, 20, 40, 30]]), NO_BOXES)
    for angle, sides in ((0, (20, 10)), (90, (10, 20)), (180, (20, 10))):
        box = torch.tensor([[30.0, 25, *sides, angle]])
        rotated = draw_boxes_beside_ground_truth(image, box, torch.zeros(0, 5))
        assert (green_extent(rotated) - green_extent(upright)).abs().max() <= 1
    # 45 degrees counter-clockwise: the right end is up
    slanted_box = torch.tensor([[30.0, 30, 40, 4, 45]])
    slanted = draw_boxes_beside_ground_truth(image, slanted_box, torch.zeros(0, 5))[1, :, :60] > 0
    assert slanted[:25, 35:].any() and slanted[35:, :25].any()
    assert not slanted[:25, :25].any() and not slanted[35:, 35:].any()


def green_extent(image):
    """First and last row and column with a green pixel in the left half."""
    pixels = (image[1, :, :60] > 0).nonzero()
    return torch.cat([pixels.amin(dim=0), pixels.amax(dim=0)])


def test_labels_tint_only_pixels_of_known_classes():
    image = torch.full((3, 4, 6), 100.0)
    gt_labels = torch.full((4, 6), 255)
    gt_labels[0, 0] = 1
    drawn = draw_labels_beside_ground_truth(image, gt_labels, torch.zeros(4, 6), num_classes=2)
    assert drawn.shape == (3, 4, 12) and drawn.dtype == torch.uint8
    tinted = (drawn != 100).any(dim=0)
    assert tinted[0, 0] and tinted[:, :6].sum() == 1 and tinted[:, 6:].all()


@pytest.mark.parametrize("num_regions", [1, 20])
def test_masks_are_drawn_one_per_row(num_regions):
    logits = torch.full((num_regions, 7, 7), 20.0)
    drawn = draw_masks_beside_ground_truth(logits, torch.zeros(num_regions, 7, 7, dtype=torch.bool))
    assert drawn.shape == (3, min(num_regions, 8) * 112, 224) and drawn.dtype == torch.uint8
    assert (drawn[:, :, :112] >= 254).all() and not drawn[:, :, 112:].any()
