"""Decoding of the content of image files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hydet.data.images.decoding import TooManyPixelsError, decode_image, decode_labels

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def content_of(array, format, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format, **options)
    return np.frombuffer(bytearray(stream.getvalue()), dtype=np.uint8)


def decode(content, **options):
    return decode_image(content, **{"orient": True, "value_range": "auto", "max_pixels": 1000, **options})


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_value(format):
    image = decode(content_of(PIXELS, format))
    assert image.dtype == torch.uint8 and np.array_equal(image.permute(1, 2, 0).numpy(), PIXELS)


def test_gray_images_have_three_equal_channels():
    image = decode(content_of(PIXELS[..., 0], "PNG"))
    assert image.shape == (3, 5, 7) and all(np.array_equal(c.numpy(), PIXELS[..., 0]) for c in image)


def test_large_images_are_refused_before_they_are_decoded():
    with pytest.raises(TooManyPixelsError, match=r"7 x 5 .* max_pixels=34"):
        decode(content_of(PIXELS, "PNG"), max_pixels=34)


def test_an_image_is_turned_only_on_request():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = content_of(PIXELS, "PNG", exif=exif)
    assert decode(content).shape == (3, 7, 5) and decode(content, orient=False).shape == (3, 5, 7)


def test_label_maps_keep_the_stored_values():
    labels = np.array([[0, 300], [65535, 1]], dtype=np.uint16)
    assert np.array_equal(decode_labels(content_of(labels, "PNG")), labels)


@pytest.mark.parametrize("decoder", [decode, decode_labels])
def test_a_changed_byte_in_a_png_is_an_error(decoder):
    content = content_of(PIXELS, "PNG").copy()
    content[-20] ^= 0xFF  # in the pixels
    with pytest.raises(Exception, match=r".+"):
        decoder(content)
