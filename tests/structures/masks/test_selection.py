"""Indexing and joining that the mask containers share."""

import pytest
import torch

from hydet.structures import BitMasks, Boxes, ROIMasks
from hydet.structures.masks.selection import check_cat, match_boxes, select_masks

MASKS = torch.arange(24).reshape(3, 2, 4)


@pytest.mark.parametrize(
    "index",
    [
        1,
        -1,
        slice(0, 2),
        slice(0, 0),
        torch.tensor(2),
        torch.tensor([2, 0]),
        torch.tensor([True, False, True]),
    ],
    ids=str,
)
def test_a_selection_keeps_three_dimensions(index):
    selected = select_masks(MASKS, index, "BitMasks")
    expected = MASKS[index]
    assert torch.equal(selected, expected if expected.ndim == 3 else expected[None])


def test_an_index_that_adds_or_removes_dimensions_is_named():
    with pytest.raises(ValueError, match=r"indexing BitMasks with .* gives a tensor of 4 dimensions"):
        select_masks(MASKS, torch.tensor([[0, 1]]), "BitMasks")


def test_boxes_and_tensors_are_matched_with_masks():
    corners = torch.rand(3, 4)
    assert match_boxes(Boxes(corners), 3, "crop").data_ptr() == match_boxes(corners, 3, "crop").data_ptr()
    with pytest.raises(ValueError, match="crop: 2 masks need as many boxes, got 3"):
        match_boxes(corners, 2, "crop")


def test_cat_needs_at_least_one_container_of_one_class():
    masks = BitMasks(torch.zeros(1, 2, 2))
    check_cat([masks, masks], BitMasks)
    with pytest.raises(ValueError, match="at least one BitMasks, got none"):
        check_cat([], BitMasks)
    with pytest.raises(TypeError, match="takes BitMasks, got a ROIMasks"):
        check_cat([masks, ROIMasks(torch.zeros(1, 28, 28))], BitMasks)
