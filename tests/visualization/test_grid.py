import pytest
import torch
from torchvision.io import decode_image

from hydet.visualization import picture_grid, save_png


def plain(height, width, value):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def test_every_picture_is_in_the_grid():
    rows = [[plain(40, 60, 10), plain(60, 40, 20)], [plain(30, 30, 30)]]
    page = picture_grid(rows, cell_side=60, gap=4)
    for value, pixels in ((10, 40 * 60), (20, 60 * 40), (30, 60 * 60)):
        assert (page == value).all(dim=0).sum() == pixels  # the small one is doubled
    assert page.shape == (3, 60 + 60 + 3 * 4, 60 + 40 + 3 * 4)  # the second column is narrower


def test_captions_take_room_and_long_ones_are_cut():
    rows = [[plain(40, 60, 10), plain(40, 60, 20)]]
    bare = picture_grid(rows, cell_side=60)
    captioned = picture_grid(
        rows, cell_side=60, column_captions=["predictions" * 9, "truth"], row_captions=["a.jpg"]
    )
    assert captioned.shape[1] > bare.shape[1] and captioned.shape[2] == bare.shape[2]
    assert (captioned < 100).all(dim=0).sum() > (bare < 100).all(dim=0).sum()


def test_large_pictures_are_reduced():
    page = picture_grid([[plain(400, 300, 10)]], cell_side=100, gap=0)
    assert page.shape == (3, 100, 75)


def test_no_pictures():
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match="at least one"):
            picture_grid(nothing)


def test_png_files(tmp_path):
    picture = torch.randint(0, 256, (3, 7, 9), dtype=torch.uint8)
    path = save_png(picture, tmp_path / "new" / "folder" / "a.png")
    assert torch.equal(decode_image(str(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(TypeError, match="uint8"):
        save_png(picture.float(), tmp_path / "b.png")
