"""Checks of PNG files."""

import io

import numpy as np
import pytest
from PIL import Image

from hydet.data.images.png import PngFile, find_exif, is_png


@pytest.fixture
def content():
    """Return a PNG file of random pixels with EXIF data and a comment."""
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    return stream.getvalue()


def test_every_damaged_byte_of_the_pixels_is_found(content):
    PngFile(memoryview(content)).check_rows()
    start = content.index(b"IDAT")
    for position in range(start, content.index(b"IEND") - 4):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        with pytest.raises(ValueError, match="PNG file"):
            PngFile(memoryview(damaged))


def test_missing_rows_are_found(content):
    header = bytearray(content)
    header[16:24] = (17).to_bytes(4, "big") + (14).to_bytes(4, "big")
    with pytest.raises(ValueError, match="damaged in chunk 'IHDR'"):
        PngFile(memoryview(header))
    file = PngFile(memoryview(content))
    file._height += 1
    with pytest.raises(ValueError, match="too few rows"):
        file.check_rows()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 30)])
def test_number_of_bytes_of_interlaced_images(size):
    """Adam7 gives each pixel to one pass, so with 8 bits the bytes are the pixels and a filter byte per row."""
    file = PngFile.__new__(PngFile)
    file._height, file._width = size
    file._bits_per_pixel, file._is_interlaced = 8, True
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    grids = [np.zeros(size)[top::row_step, left::step] for left, top, step, row_step in passes]
    assert file._num_bytes() == sum(grid.size + len(grid) for grid in grids if grid.size)


def test_exif_data_are_found_without_the_pixels(content):
    assert is_png(content) and not is_png(b"GIF89a")
    assert find_exif(io.BytesIO(content))[:2] in (b"MM", b"II")
    assert find_exif(io.BytesIO(content[:20])) is None
