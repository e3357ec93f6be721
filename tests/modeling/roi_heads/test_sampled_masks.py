import pytest
import torch

from hydet.modeling.roi_heads.sampled_masks import SampledBitMasks
from hydet.structures import BitMasks


def test_sampled_masks_match_indexed_masks(make):
    masks, boxes = make.targets((40, 50), 4).gt_masks, make.random_boxes(9, (40, 50))
    index = torch.tensor([0, 3, 3, 1, 0, 0, 2, 3, 1])
    sampled, plain = SampledBitMasks(masks, index), masks[index]
    assert isinstance(sampled, BitMasks) and len(sampled) == 9
    assert torch.equal(sampled.tensor, plain.tensor)
    assert torch.equal(sampled.crop_and_resize(boxes, 7), plain.crop_and_resize(boxes, 7))
    for item in (2, slice(1, 5), index > 1, torch.tensor([8, 0]), torch.tensor([], dtype=torch.long)):
        assert torch.equal(sampled[item].tensor, plain[item].tensor)
        assert torch.equal(sampled[item].crop_and_resize(boxes[: len(plain[item])], 3),
                           plain[item].crop_and_resize(boxes[: len(plain[item])], 3))  # fmt: skip
    assert torch.equal(sampled.get_bounding_boxes().tensor, plain.get_bounding_boxes().tensor)
    assert torch.equal(BitMasks.cat([sampled, plain]).tensor, torch.cat([plain.tensor] * 2))
    assert sampled.to("cpu").image_size == (40, 50)
    with pytest.raises(ValueError, match="as many boxes"):
        sampled.crop_and_resize(boxes[:2], 7)


def test_crops_do_not_depend_on_the_number_of_bitmaps_per_step(make, monkeypatch):
    masks, boxes = make.targets((40, 50), 5).gt_masks, make.random_boxes(12, (40, 50))
    sampled = SampledBitMasks(masks, torch.randint(5, (12,)))
    whole = sampled.crop_and_resize(boxes, 9)
    monkeypatch.setattr("hydet.modeling.roi_heads.sampled_masks.CROP_PIXELS", 40 * 50 * 2)
    assert torch.equal(sampled.crop_and_resize(boxes, 9), whole)
