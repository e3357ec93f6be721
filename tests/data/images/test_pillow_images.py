"""Images that Pillow has opened already."""

import numpy as np
import pytest
import torch
from PIL import Image

from hydet.data import read_image
from hydet.data.images.pillow_images import convert_pillow_image


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "La"])
def test_modes_become_rgb(mode):
    image = Image.new("RGB", (9, 7), (250, 20, 30)).convert("LA" if mode == "La" else mode).convert(mode)
    pixels = convert_pillow_image(image, value_range="auto")
    assert pixels.shape == (3, 7, 9) and pixels.dtype == torch.uint8
    if mode in ("RGB", "P", "RGBA", "CMYK"):
        assert (pixels.float().mean((1, 2)) - torch.tensor([250.0, 20, 30])).abs().max() < 12


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_turned_image_equals_its_file(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    expected = read_image(path)
    assert expected.shape == (3, 24, 16)
    with Image.open(path) as image:
        for _ in range(2):  # the first conversion loads the image, which Pillow turns in some formats
            torch.testing.assert_close(convert_pillow_image(image, value_range="auto"), expected)


def test_deep_images_are_scaled():
    values = np.array([[0, 1000, 4095]], dtype=np.uint16)
    pixels = convert_pillow_image(Image.fromarray(values), value_range="auto")
    assert pixels[0].tolist() == [[0, 62, 255]]
