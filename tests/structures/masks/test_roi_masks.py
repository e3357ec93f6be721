import pytest
import torch

from hydet.structures import BitMasks, Boxes, ROIMasks


def test_pasting_covers_boxes():
    masks = ROIMasks(torch.ones(3, 7, 7))
    boxes = torch.tensor([[2.0, 3, 12, 9], [-5, -5, 4, 4], [50, 50, 60, 60]])
    masks_in_image = masks.to_bitmasks(Boxes(boxes), 16, 20)
    expected = torch.tensor([[2.0, 3, 12, 9], [0, 0, 4, 4], [0, 0, 0, 0]])
    assert torch.equal(masks_in_image.get_bounding_boxes().tensor, expected)
    assert torch.equal(BitMasks.from_roi_masks(masks, 16, 20, boxes=boxes).tensor, masks_in_image.tensor)
    assert BitMasks.from_roi_masks(
        masks[0], 16, 20, threshold=0.4
    ).tensor.all()  # without boxes: the whole image
    assert len(masks[torch.tensor([True, False, True])]) == len(ROIMasks.cat([masks[0], masks[2]])) == 2
    with pytest.raises(ValueError, match="as many boxes"):
        masks.to_bitmasks(boxes[:2], 16, 20)
