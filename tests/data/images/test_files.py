"""Descriptions of files that no image decoder recognizes."""

import pytest

from hydet.data import DataError, read_image
from hydet.data.images.files import describe_content, read_bytes

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90728\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LFS_POINTER, "a Git LFS pointer.*git lfs pull"),
        (b"/annex/objects/SHA256E-s1--00.jpg\n", "git-annex pointer"),
        (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "a web page"),
        (b"\n\n<html>\n<head>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "error message of the server"),
        (b'{"message": "Not Found"}', "error message of the server"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b"hello, this is no image", "a text file ..hello, this is no image"),
        ("Größe".encode(), "a text file"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "a HEIF image"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00", "a video"),
        (b"\x00" * 128 + b"DICM", "a DICOM file"),
        (b"\x00" * 500, "zero bytes"),
        (b"\x00\x05\x16\x07\x00\x02", "companion file of macOS"),
        (b"\xff\xd8\xff\xd9", "a JPEG file with a damaged header"),
    ],
)
def test_files_are_named(tmp_path, content, expected):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.jpg is .*{expected}") as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_unknown_content_is_not_described():
    assert describe_content(bytes(range(128, 256))) is None


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "x.jpg").open("wb") as stream:
        stream.truncate(2**40)  # a sparse file
    with pytest.raises(DataError, match=r"x\.jpg: the file has 1099\.5 GB"):
        read_bytes(tmp_path / "x.jpg", max_bytes=10**9)
    with pytest.raises(DataError, match=r"x\.jpg: the file has"):
        read_image(tmp_path / "x.jpg")
