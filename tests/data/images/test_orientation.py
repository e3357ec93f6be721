"""EXIF orientations."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hydet.data.images.orientation import (
    INVERSE_ORIENTATION,
    ORIENTATION_TAG,
    orient_image,
    read_orientation,
    swaps_sides,
)

PIXELS = torch.arange(2 * 3 * 3, dtype=torch.uint8).reshape(3, 2, 3)


def saved(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS.permute(1, 2, 0).numpy()).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(tmp_path, orientation):
    with Image.open(saved(tmp_path, orientation)) as image:
        assert read_orientation(image) == orientation
        expected = np.array(ImageOps.exif_transpose(image))
    turned = orient_image(PIXELS, orientation)
    assert np.array_equal(turned.permute(1, 2, 0).numpy(), expected)
    assert (turned.shape[1:] != PIXELS.shape[1:]) == swaps_sides(orientation)
    assert torch.equal(orient_image(turned, INVERSE_ORIENTATION.get(orientation, orientation)), PIXELS)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_count_as_upright(tmp_path, orientation):
    with Image.open(saved(tmp_path, orientation)) as image:
        assert read_orientation(image) == 1
