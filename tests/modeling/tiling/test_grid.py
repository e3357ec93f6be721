import itertools

import pytest
import torch

from hydet.modeling.tiling.grid import Tile, crop_input, make_tiles, shift_boxes
from hydet.structures import Boxes, Instances


def test_an_image_that_fits_is_one_tile():
    assert make_tiles((64, 100), 100, 0.2) == [Tile(0, 0, 100, 64)]


@pytest.mark.parametrize("size", [(101, 100), (1000, 333), (3000, 4000), (7, 2500)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    tiles = make_tiles(size, 100, overlap)
    covered = torch.zeros(size, dtype=torch.bool)
    for x1, y1, x2, y2 in tiles:
        assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert {tile.size for tile in tiles} == {(min(100, size[0]), min(100, size[1]))}
    columns = sorted({(tile.x1, tile.x2) for tile in tiles})
    assert all(a[1] - b[0] >= overlap * 100 - 1 for a, b in itertools.pairwise(columns))


def test_an_object_as_large_as_the_overlap_is_whole_in_some_tile():
    tiles = make_tiles((100, 1234), 100, 0.3)
    for x in range(1234 - 29):
        assert any(tile.x1 <= x and x + 29 <= tile.x2 for tile in tiles)


def test_the_input_of_a_tile_has_its_pixels_and_proposals():
    proposals = Instances(
        (50, 80),
        proposal_boxes=Boxes([[0.0, 0, 10, 10], [30, 20, 60, 45], [70, 0, 80, 9]]),
        objectness_logits=torch.tensor([1.0, 2, 3]),
    )
    entry = {
        "image": torch.arange(50 * 80).view(1, 50, 80),
        "proposals": proposals,
        "instances": proposals,
        "image_id": 7,
        "height": 5,
        "width": 8,
    }
    cropped = crop_input(entry, Tile(40, 10, 70, 40))
    assert torch.equal(cropped["image"], entry["image"][:, 10:40, 40:70])
    assert (cropped["height"], cropped["width"], cropped["image_id"]) == (30, 30, 7)
    assert cropped["proposals"].proposal_boxes.tensor.tolist() == [[0, 10, 20, 30]]
    assert cropped["proposals"].objectness_logits.tolist() == [2]
    assert "instances" not in cropped


def test_shift_keeps_sides_and_angles():
    assert shift_boxes(torch.tensor([[1.0, 2, 3, 4]]), 10, -1).tolist() == [[11, 1, 13, 3]]
    assert shift_boxes(torch.tensor([[1.0, 2, 3, 4, 30]]), 10, -1).tolist() == [[11, 1, 3, 4, 30]]
