import numpy as np
import pytest
import torch
from PIL import Image

from hydet.data import DataError, read_image
from hydet.data.images.reading import read_image_size, read_labels


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_formats_and_color_modes(tmp_path, suffix, mode):
    if suffix == "jpg" and mode in ("P", "RGBA"):
        pytest.skip("JPEG has no such mode")
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (9, 7), (250, 20, 30)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 7, 9) and image.dtype == torch.uint8
    if mode != "L":
        assert (image.float().mean((1, 2)) - torch.tensor([250.0, 20, 30])).abs().max() < 12


def test_cmyk_and_16_bits(tmp_path):
    Image.new("CMYK", (9, 7)).save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").shape == (3, 7, 9)
    Image.fromarray(np.full((7, 9), 65535 // 2, dtype=np.uint16)).save(tmp_path / "d.png")
    assert read_image(tmp_path / "d.png").float().mean() == pytest.approx(127, abs=1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation(tmp_path, orientation):
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 16)).save(path, exif=exif)
    height, width = (8, 16) if orientation >= 5 else (16, 8)
    assert read_image(path).shape == (3, height, width)
    assert read_image_size(path) == (height, width)
    assert read_image(path, orient=False).shape == (3, 16, 8)


def test_labels_keep_the_values_of_palette_and_color_images(tmp_path):
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    gray = Image.fromarray(labels)
    gray.save(tmp_path / "gray.png")
    gray.putpalette(list(range(255, -1, -1)) * 3)  # turns it into a palette image with the same values
    gray.save(tmp_path / "palette.png")
    for name in ("gray", "palette"):
        np.testing.assert_array_equal(read_labels(tmp_path / f"{name}.png"), labels)
    colors = np.stack([labels] * 3, axis=2)
    Image.fromarray(colors).save(tmp_path / "color.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "color.png"), colors)


@pytest.mark.parametrize("read", [read_image, read_image_size, read_labels])
@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_not_images_raise_one_line(tmp_path, read, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png") as error:
        read(tmp_path / "x.png")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "y.png")
