import pytest
import torch

from hydet.modeling.tiling import cut_objects
from hydet.modeling.tiling.cut_objects import find_fragments, is_cut

LEFT, RIGHT = [0.0, 0, 100, 100], [80.0, 0, 180, 100]  # two tiles of an image of 100 x 180


def fragments(boxes, tiles, classes=None):
    boxes, tiles = torch.tensor(boxes), torch.tensor(tiles)
    classes = torch.zeros(len(boxes)) if classes is None else torch.tensor(classes)
    indices = (tiles[:, 0] > 0).long()
    cut = is_cut(boxes, tiles, (100, 180))
    return find_fragments(boxes, classes, indices, tiles, cut, match_thresh=0.5)


def test_only_borders_inside_the_image_cut_objects():
    boxes = torch.tensor([[0.0, 0, 50, 100], [50, 10, 99.5, 20], [60, 10, 98, 20], [80, 5, 120, 50]])
    tiles = torch.tensor([LEFT, LEFT, LEFT, RIGHT])
    assert is_cut(boxes, tiles, (100, 180)).tolist() == [False, True, False, True]


def test_a_cut_part_belongs_to_the_complete_detection():
    boxes = [[90.0, 20, 100, 60], [90, 20, 130, 60], [20, 20, 40, 40]]
    assert fragments(boxes, [LEFT, RIGHT, LEFT]).absorbed == [(0, 1)]
    # The part of another class, and a part of another size, stay.
    assert fragments(boxes, [LEFT, RIGHT, LEFT], [0, 1, 0]).absorbed == []
    boxes[0] = [90.0, 0, 100, 100]
    assert fragments(boxes, [LEFT, RIGHT, LEFT]).absorbed == []


def test_a_complete_box_that_ends_inside_the_tile_does_not_take_a_larger_part():
    assert fragments([[10.0, 20, 100, 60], [85, 20, 120, 60]], [LEFT, RIGHT]) == ([], [])


def test_parts_of_an_object_larger_than_the_overlap_form_a_group():
    assert fragments([[30.0, 20, 100, 60], [80, 22, 150, 60]], [LEFT, RIGHT]) == ([], [[0, 1]])
    assert fragments([[30.0, 20, 100, 60], [80, 62, 150, 99]], [LEFT, RIGHT]) == ([], [])


def test_a_part_joins_the_best_match_only():
    boxes = [[30.0, 20, 100, 60], [80, 10, 150, 60], [80, 21, 150, 60]]
    assert fragments(boxes, [LEFT, RIGHT, RIGHT]).groups == [[0, 2]]


def test_a_chain_of_parts_is_one_group():
    boxes = torch.tensor([[30.0, 20, 100, 60], [80, 20, 180, 60], [160, 20, 200, 60]])
    tiles = torch.tensor([LEFT, RIGHT, [160.0, 0, 260, 100]])
    cut = is_cut(boxes, tiles, (100, 260))
    result = find_fragments(boxes, torch.zeros(3), torch.arange(3), tiles, cut, match_thresh=0.5)
    assert result == ([], [[0, 1, 2]])


@pytest.mark.parametrize("pairs", [1, 50])
def test_results_do_not_depend_on_the_size_of_the_tables(pairs, monkeypatch):
    torch.manual_seed(0)
    corners = torch.rand(20, 2) * 60 + torch.tensor([50.0, 0])
    boxes = torch.cat([corners, corners + 40], dim=1).repeat_interleave(2, dim=0)
    tiles = torch.tensor([LEFT, RIGHT]).repeat(20, 1)
    boxes = torch.cat(
        [torch.maximum(boxes[:, :2], tiles[:, :2]), torch.minimum(boxes[:, 2:], tiles[:, 2:])], dim=1
    )
    expected = fragments(boxes.tolist(), tiles.tolist())
    assert expected.absorbed and expected.groups
    monkeypatch.setattr(cut_objects, "PAIRS_AT_ONCE", pairs)
    assert fragments(boxes.tolist(), tiles.tolist()) == expected
