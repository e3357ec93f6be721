"""Opening of image files."""

import io

import pytest
from PIL import Image, UnidentifiedImageError

from hydet.data.images.opening import Header, open_image, read_header


def stream_of(format, orientation=None, **options):
    stream = io.BytesIO()
    image = Image.new("RGB", (6, 4), (10, 20, 30))
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    image.save(stream, format, **options)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_the_header_has_the_stored_size(format):
    stream = stream_of(format)
    with open_image(stream) as image:
        assert read_header(image, stream) == Header(4, 6, 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_sides_are_exchanged_in_the_upright_size_only(format):
    stream = stream_of(format, orientation=6)
    with open_image(stream) as image:
        header = read_header(image, stream)
    assert header.stored_size == (4, 6) and header.upright_size == (6, 4)


def test_reading_the_header_keeps_the_position_of_the_stream():
    stream = stream_of("PNG")
    with open_image(stream) as image:
        stream.seek(3)
        read_header(image, stream)
        assert stream.tell() == 3


@pytest.mark.parametrize("content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n"])
def test_other_content_is_not_opened(content):
    with pytest.raises(UnidentifiedImageError), open_image(io.BytesIO(content)):
        pass
