import numpy as np
import pytest
import torch

from hydet.structures import BoxMode

UPRIGHT = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


@pytest.mark.parametrize("source", UPRIGHT)
@pytest.mark.parametrize("through", [*UPRIGHT, BoxMode.XYWHA_ABS])
def test_round_trip(source, through):
    boxes = torch.tensor([[3.0, 4, 10, 20], [0.5, 0.25, 7, 9]])
    converted = BoxMode.convert(boxes, source, through)
    torch.testing.assert_close(BoxMode.convert(converted, through, source), boxes)


@pytest.mark.parametrize(
    "box", [[1.0, 2, 3, 4], (1.0, 2.0, 3.0, 4.0), np.array([[1.0, 2, 3, 4]]), torch.tensor([1.0, 2, 3, 4])]
)
def test_type_and_shape_are_kept(box):
    converted = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(converted) is type(box)
    assert np.asarray(converted).shape == np.asarray(box).shape
    assert np.asarray(converted).reshape(-1).tolist() == [1, 2, 4, 6]


def test_lists_keep_double_precision_and_integers():
    assert BoxMode.convert([0.1, 0.2, 0.3, 0.4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) == [
        0.1,
        0.2,
        0.1 + 0.3,
        0.2 + 0.4,
    ]
    assert BoxMode.convert((1, 2, 3, 4), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) == (1, 2, 4, 6)
    assert BoxMode.convert([0, 0, 4, 2], BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) == [2.0, 1.0, 4.0, 2.0, 0.0]


def test_rotation_by_90_degrees_swaps_sides_of_enclosing_box():
    converted = BoxMode.convert([10.0, 20.0, 8.0, 2.0, 90.0], BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    assert converted == pytest.approx([9, 16, 11, 24])
    converted = BoxMode.convert([10.0, 20.0, 8.0, 2.0, 90.0], BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS)
    assert converted == pytest.approx([9, 16, 2, 8])


def test_enum_values_match_stored_files():
    assert [m.value for m in BoxMode] == [0, 1, 2, 3, 4]
    assert BoxMode.convert([0, 0, 1, 1], 0, 1) == [0, 0, 1, 1]


def test_empty_input():
    assert BoxMode.convert(torch.zeros(0, 4), BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS).shape == (0, 5)


@pytest.mark.parametrize(
    "box, source, target, message",
    [
        ([1.0, 2, 3], 0, 1, "4 numbers"),
        ([1.0, 2, 3, 4], 4, 0, "5 numbers"),
        ([1.0, 2, 3, 4], 2, 0, "size of the image"),
        (torch.ones(2, 4, dtype=torch.int64), 0, 4, "floats"),
    ],
)
def test_invalid_conversions_raise(box, source, target, message):
    with pytest.raises(ValueError, match=message):
        BoxMode.convert(box, source, target)
    with pytest.raises(TypeError, match="str"):
        BoxMode.convert("1234", 0, 1)


@pytest.mark.parametrize("boxes", [[[1.0, 2, 3, 4]], ((1, 2, 3, 4), (5, 6, 7, 8))])
def test_nested_lists_of_boxes_raise(boxes):
    with pytest.raises(TypeError, match=r"numbers of one box .* \(N, k\) array or tensor"):
        BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
