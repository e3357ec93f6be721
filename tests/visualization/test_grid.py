import pytest
import torch
from torchvision.io import decode_image

from hydet.visualization import image_grid, save_png


def make_uniform(height, width, value):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def test_every_image_is_in_the_grid():
    rows = [[make_uniform(40, 60, 10), make_uniform(60, 40, 20)], [make_uniform(30, 30, 30)]]
    page = image_grid(rows, cell_side=60, gap=4)
    for value, pixels in ((10, 40 * 60), (20, 60 * 40), (30, 60 * 60)):
        assert (page == value).all(dim=0).sum() == pixels  # the small image is doubled
    assert page.shape == (3, 60 + 60 + 3 * 4, 60 + 40 + 3 * 4)  # the second column is narrower


def test_captions_need_space_and_long_ones_are_cut():
    rows = [[make_uniform(40, 60, 10), make_uniform(40, 60, 20)]]
    without = image_grid(rows, cell_side=60)
    captioned = image_grid(
        rows, cell_side=60, column_captions=["predictions" * 9, "ground truth"], row_captions=["a.jpg"]
    )
    assert captioned.shape[1] > without.shape[1] and captioned.shape[2] == without.shape[2]
    assert (captioned < 100).all(dim=0).sum() > (without < 100).all(dim=0).sum()


def test_large_images_are_reduced():
    page = image_grid([[make_uniform(400, 300, 10)]], cell_side=100, gap=0)
    assert page.shape == (3, 100, 75)


@pytest.mark.parametrize("rows", [[], [[]]])
def test_a_grid_without_images_is_rejected(rows):
    with pytest.raises(ValueError, match="at least one"):
        image_grid(rows)


def test_png_files(tmp_path):
    image = torch.randint(0, 256, (3, 7, 9), dtype=torch.uint8)
    path = save_png(image, tmp_path / "new" / "folder" / "a.png")
    assert torch.equal(decode_image(str(path)), image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(TypeError, match="uint8"):
        save_png(image.float(), tmp_path / "b.png")
