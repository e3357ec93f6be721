import pytest
import torch

from hydet.modeling.tiling.fusion import fuse
from hydet.structures import Boxes, Instances, ROIMasks, RotatedBoxes


def test_the_box_encloses_all_parts_and_the_best_score_remains():
    parts = Instances(
        (100, 200),
        pred_boxes=Boxes([[10.0, 5, 50, 20], [40, 8, 90, 30]]),
        scores=torch.tensor([0.5, 0.8]),
        pred_classes=torch.tensor([3, 3]),
        pred_keypoints=torch.tensor([[[12.0, 6, 0.9], [45, 9, 0.1]], [[41, 9, 0.2], [80, 20, 0.7]]]),
    )
    fused = fuse(parts)
    assert fused.pred_boxes.tensor.tolist() == [[10, 5, 90, 30]]
    assert fused.scores.tolist() == pytest.approx([0.8]) and fused.pred_classes.tolist() == [3]
    assert fused.pred_keypoints[0, :, :2].tolist() == [[12, 6], [80, 20]]


def test_masks_cover_what_their_parts_cover():
    parts = Instances(
        (40, 80),
        pred_boxes=Boxes([[0.0, 0, 40, 40], [30, 0, 70, 20]]),
        scores=torch.tensor([0.5, 0.8]),
        pred_classes=torch.tensor([0, 0]),
        pred_masks=ROIMasks(torch.ones(2, 56, 56)),
    )
    fused = fuse(parts)
    mask = fused.pred_masks.to_bitmasks(fused.pred_boxes, 40, 80).tensor[0]
    expected = torch.zeros(40, 80, dtype=torch.bool)
    expected[:, :40] = True
    expected[:20, 30:70] = True
    assert (mask != expected).sum() <= 40  # the cells of the mask do not end where the parts end


def test_rotated_parts_are_enclosed_in_their_direction():
    whole = torch.tensor([100.0, 100, 80, 20, 30])
    along = torch.tensor([torch.tensor(30.0).deg2rad().cos(), -torch.tensor(30.0).deg2rad().sin()])
    boxes = torch.stack([whole, whole])
    boxes[0, :2] -= 15 * along  # covers -40 to 10 along the width
    boxes[0, 2] = 50
    boxes[1, :2] += 20 * along  # covers 0 to 40
    boxes[1, 2] = 40
    parts = Instances(
        (200, 200),
        pred_boxes=RotatedBoxes(boxes),
        scores=torch.tensor([0.5, 0.8]),
        pred_classes=torch.tensor([0, 0]),
    )
    torch.testing.assert_close(fuse(parts).pred_boxes.tensor[0], whole, atol=1e-3, rtol=0)
