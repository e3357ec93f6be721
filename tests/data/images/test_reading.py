"""Images of all formats, depths and orientations, and files that are no images."""

import os
import socket
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hydet.data import DataError, read_image
from hydet.data.images import decoding
from hydet.data.images.reading import ImageReader, read_image_size, read_labels

pytestmark = pytest.mark.filterwarnings("ignore:(Corrupt EXIF|Truncated File):UserWarning")

ORIENTATION = 0x0112
# Orientation -> what turns the stored image upright, from the EXIF standard.
TRANSPOSES = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture
def colors():
    """Return smooth random colors as a Pillow image of 24 x 16 pixels."""
    small = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((24, 16), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_formats_and_color_modes(tmp_path, suffix, mode):
    if (suffix in ("jpg", "ppm") and mode in ("P", "RGBA")) or (suffix == "jpg" and mode == "1"):
        pytest.skip("the format has no such mode")
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (9, 7), (250, 20, 30)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 7, 9) and image.dtype == torch.uint8
    if mode not in ("L", "1"):
        assert (image.float().mean((1, 2)) - torch.tensor([250.0, 20, 30])).abs().max() < 12
    assert read_image_size(path) == (7, 9)


def test_cmyk(tmp_path):
    Image.new("CMYK", (9, 7), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    red, green, blue = read_image(tmp_path / "c.jpg").float().mean((1, 2))
    assert red > 240 and green < 20 and blue < 20


@pytest.mark.parametrize(
    ("suffix", "settings"), [("jpg", {"quality": 80}), ("webp", {}), ("webp", {"lossless": True})]
)
def test_torchvision_and_pillow_decode_the_same_pixels(tmp_path, colors, suffix, settings, monkeypatch):
    path = tmp_path / f"x.{suffix}"
    colors.resize((120, 90)).save(path, **settings)
    image = read_image(path)
    for name in ("decode_jpeg", "decode_webp"):
        monkeypatch.delattr(f"torchvision.io.{name}")
    decoding._torchvision_decoder.cache_clear()
    try:
        assert decoding._torchvision_decoder("decode_jpeg") is None
        assert torch.equal(read_image(path), image)
    finally:
        decoding._torchvision_decoder.cache_clear()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind", ["jpg", "png", "late.png", "webp", "tif", "deflate.tif", "deep.tif", "deep.png"]
)
def test_exif_orientation(tmp_path, colors, kind, orientation):
    path = tmp_path / f"x.{kind}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    settings = {"compression": "tiff_adobe_deflate"} if kind == "deflate.tif" else {}
    settings |= {"lossless": True} if kind == "webp" else {"quality": 100} if kind == "jpg" else {}
    if kind.startswith("deep"):
        colors = Image.fromarray(np.array(colors.convert("L")).astype(np.uint16) * 257)
    if kind == "late.png":  # EXIF data after the pixels
        colors.save(path)
        content = path.read_bytes()
        path.write_bytes(content[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + content[-12:])
    else:
        colors.save(path, exif=exif, **settings)
    stored = np.array(Image.open(path)) if kind == "jpg" else np.array(colors)
    if kind.startswith("deep"):
        stored = np.repeat((stored // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    method = TRANSPOSES[orientation]
    upright = stored if method is None else np.array(Image.fromarray(stored).transpose(method))
    image = read_image(path)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), upright)
    assert read_image_size(path) == tuple(image.shape[1:])
    assert np.array_equal(read_image(path, orient=False).permute(1, 2, 0).numpy(), stored)


def test_broken_exif_data_count_as_none(tmp_path, colors):
    for name in ("x.jpg", "x.png", "x.webp"):
        colors.save(tmp_path / name, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
        assert read_image(tmp_path / name).shape == (3, 16, 24)
        assert read_image_size(tmp_path / name) == (16, 24)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_animations_and_pages_give_their_first_image(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    red, green, blue = read_image(path).float().mean((1, 2))
    assert red > 240 and green < 15 and blue < 15
    assert read_image_size(path) == (7, 9)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("bits", "expected"), [(8, 255), (10, 255), (12, 255), (16, 255)])
def test_gray_images_of_more_than_8_bits_use_the_whole_range(tmp_path, suffix, bits, expected):
    path = tmp_path / f"x.{suffix}"
    ramp = np.linspace(0, 2**bits - 1, 256).astype(np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(path)
    image = read_image(path)
    assert image.shape == (3, 4, 256) and int(image.max()) == expected
    assert len(image.unique()) == 256
    assert torch.equal(image[0], image[2])


def test_color_images_of_16_bits_keep_the_low_bytes(tmp_path):
    values = np.arange(0, 4096, 64, dtype=np.uint16).reshape(4, 16)  # 12 bits: the high byte has 16 levels
    rgb = np.stack([values, values[::-1], np.full_like(values, 4095)], axis=2)
    for name, channels in (("rgb", rgb), ("rgba", np.dstack([rgb, values])), ("gray_alpha", rgb[:, :, ::2])):
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
        color_type = {3: 2, 4: 6, 2: 4}[channels.shape[2]]
        header = struct.pack(">IIBBBBB", 16, 4, 16, color_type, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        path = tmp_path / f"{name}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
        image = read_image(path, value_range=[0, 4095]).permute(1, 2, 0).numpy()
        colors = channels[:, :, [0, 0, 0]] if name == "gray_alpha" else rgb
        assert np.array_equal(image, np.rint(colors / 4095 * 255).astype(np.uint8)), name


def test_color_tiff_of_16_bits(tmp_path):
    """Pillow writes no such file, so this is one strip of pixels after the tags."""
    values = np.arange(0, 4096, 64, dtype=np.uint16).reshape(2, 32)
    rgb = np.stack([values, values[::-1], np.full_like(values, 4095)], axis=2)
    for order, name in (("<", "little.tif"), (">", "big.tif")):
        entries = [(256, 4, 1, 32), (257, 4, 1, 2), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 300),
                   (277, 3, 1, 3), (278, 4, 1, 2), (279, 4, 1, rgb.size * 2)]  # fmt: skip
        content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
        for tag, kind, count, value in entries:
            field = (
                struct.pack(order + "HH", value, 0)
                if kind == 3 and count == 1
                else struct.pack(order + "I", value)
            )
            content += struct.pack(order + "HHI", tag, kind, count) + field
        content = content.ljust(200, b"\0") + struct.pack(order + "HHH", 16, 16, 16)
        (tmp_path / name).write_bytes(content.ljust(300, b"\0") + rgb.astype(order + "u2").tobytes())
        image = read_image(tmp_path / name).permute(1, 2, 0).numpy()
        assert np.array_equal(image, np.rint(rgb / 4095 * 255).astype(np.uint8)), name


def test_float_images(tmp_path):
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    for scale, offset in ((1, 0), (255, 0), (1000, -500)):
        Image.fromarray(ramp * scale + offset).save(tmp_path / "x.tif")
        image = read_image(tmp_path / "x.tif")
        assert image[1, 2].tolist() == list(range(256)), (scale, offset)
    Image.fromarray(ramp * np.nan).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif").max() == 0


def test_a_value_range_is_the_same_for_all_images(tmp_path):
    dark = np.full((4, 5), 900, dtype=np.uint16)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    for value_range, expected in (
        ("auto", 224),
        ("full", 4),
        ("minmax", 0),
        ([0, 4095], 56),
        ([800, 850], 255),
    ):
        assert int(read_image(tmp_path / "dark.png", value_range=value_range).max()) == expected, value_range
    with pytest.raises(ValueError, match=r"value_range must be .* got 'max'"):
        ImageReader(value_range="max")
    with pytest.raises(ValueError, match="value_range"):
        ImageReader(value_range=[5, 5])


def test_the_limit_of_pixels_is_checked_before_decoding(tmp_path):
    path = tmp_path / "x.png"
    Image.new("L", (300, 200)).save(path)
    assert read_image(path, max_pixels=60_000).shape == (3, 200, 300)
    with pytest.raises(DataError, match=r"x\.png: the image has 300 x 200 .* max_pixels=59999"):
        read_image(path, max_pixels=59_999)
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        ImageReader(max_pixels=0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "webp"])
def test_images_beyond_the_limit_of_pillow(tmp_path, monkeypatch, recwarn, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (80, 60)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    recwarn.clear()
    assert read_image(path).shape == (3, 60, 80)
    assert read_image_size(path) == (60, 80)
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


def test_warnings_as_errors_leave_images_readable(tmp_path):
    """The decoders of torchvision warn that they will go."""
    Image.new("RGB", (9, 7)).save(tmp_path / "x.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "x.jpg").shape == (3, 7, 9)


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
    deep = labels.astype(np.uint16) * 1000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "deep.png"), deep)


READERS = [read_image, read_image_size, read_labels]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\0" * 200, b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"]
)
def test_files_that_are_not_images_raise_one_line(tmp_path, read, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png") as error:
        read(tmp_path / "x.png")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "y.png")


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file_does_not_block(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "missing.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket.jpg")
        for name, kind in (
            ("pipe", "named pipe"),
            ("folder", "folder"),
            ("socket", "socket"),
            ("link", "link to a file"),
        ):
            with pytest.raises(DataError, match=rf"{name}\.jpg is a {kind}"):
                read(tmp_path / f"{name}.jpg")
    with pytest.raises(DataError, match="/dev/zero is a device"):
        read("/dev/zero")
    with pytest.raises(DataError, match="null"):
        read("a\0b.jpg")


def broken_pngs():
    """Return PNG files with one fault each; torchvision's decoder ends the process on most of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 120), dtype=np.uint8)

    def png(filters=0, rows=40, change=None, checksum=0):
        data = b"".join(bytes([filters]) + row.tobytes() for row in pixels[:rows])
        compressed = bytearray(zlib.compress(data))
        if change is not None:
            compressed[change] ^= 0xFF
        image = bytearray(png_chunk(b"IDAT", bytes(compressed)))
        image[-1] ^= checksum
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + bytes(image) + png_chunk(b"IEND", b"")

    return {
        "filter": png(filters=9),
        "checksum": png(checksum=1),
        "zlib header": png(change=0),
        "zlib data": png(change=2000),
        "zlib checksum": png(change=-1),
        "rows": png(rows=30),
        "truncated": png()[:3000],
        "truncated header": png()[:20],
        "no pixels": png()[:33] + png_chunk(b"IEND", b""),
    }


@pytest.mark.parametrize("fault", broken_pngs())
def test_damaged_png_files_are_errors_and_do_not_end_the_process(tmp_path, fault):
    path = tmp_path / "x.png"
    path.write_bytes(broken_pngs()[fault])
    for read in (read_image, read_labels):
        with pytest.raises(DataError, match=r"x\.png is not a readable image"):
            read(path)


def test_a_png_bomb_is_refused_before_memory_is_allocated(tmp_path):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 22000, 22000, 8, 2, 0, 0, 0))
    content = header + png_chunk(b"IDAT", zlib.compress(bytes(10_000))) + png_chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match="too few data for 22000 x 22000 pixels"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_truncated_files(tmp_path, colors, suffix):
    path = tmp_path / f"x.{suffix}"
    colors.resize((200, 160)).save(path)
    content = path.read_bytes()
    for length in (len(content) // 2, 40, 10, 3):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"x\.{suffix}"):
            read_image(path)


def test_without_the_decoders_of_torchvision_pillow_reads_jpeg(tmp_path, monkeypatch):
    Image.new("RGB", (9, 7), "red").save(tmp_path / "x.jpg")
    monkeypatch.setitem(sys.modules, "torchvision.io", None)  # importing it raises ImportError
    monkeypatch.setattr(
        decoding, "_torchvision_decoder", decoding._torchvision_decoder.__wrapped__
    )  # no cache
    assert decoding._torchvision_decoder("decode_jpeg") is None
    assert read_image(tmp_path / "x.jpg").shape == (3, 7, 9)


def test_decode_equals_reading_the_file(tmp_path, colors):
    path = tmp_path / "x.png"
    colors.save(path)
    torch.testing.assert_close(ImageReader().decode(path.read_bytes(), name="upload"), read_image(path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "upload is an empty file"),
        (b"<html></html>", "upload is a web page"),
        (b"\xff\xd8\xff0", "upload"),
    ],
)
def test_decode_names_broken_content(content, complaint):
    with pytest.raises(DataError, match=complaint):
        ImageReader().decode(content, name="upload")


def test_decode_limits_bytes_and_pixels(tmp_path, colors):
    path = tmp_path / "x.png"
    colors.save(path)
    reader = ImageReader(max_pixels=100)
    with pytest.raises(DataError, match=r"upload: the image has 24 x 16 .* max_pixels=100"):
        reader.decode(path.read_bytes(), name="upload")
    with pytest.raises(DataError, match="upload: the file has"):
        reader.decode(bytes(reader.max_bytes + 1), name="upload")
