import os
import sys
import unicodedata

import pytest

from hydet.data.coco.image_finder import ImageFinder


@pytest.fixture
def finder(tmp_path):
    for name in (
        "a b.jpg",
        "images/IMG_1.JPG",
        unicodedata.normalize("NFC", "images/Köln.png"),
        "images/x/c#1.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return ImageFinder(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a%20b.jpg", "a b.jpg"),
        ("./a b.jpg", "a b.jpg"),
        ("A B.JPG", "a b.jpg"),
        (" a b.jpg ", "a b.jpg"),
        ("a%20b.jp%20g", "a b.jpg"),
        ("ab.jpg", "a b.jpg"),
        ("data/train/a b.jpg", "a b.jpg"),
        ("C:\\data\\a b.jpg", "a b.jpg"),
        ("https://example.org/data/a%20b.jpg?raw=1", "a b.jpg"),
        ("/data/local-files/?d=images%5Cimg_1.jpg", "images/IMG_1.JPG"),
        ("images\\img_1.jpg", "images/IMG_1.JPG"),
        ("images/images/IMG_1.jpg", "images/IMG_1.JPG"),
        ("Images/x/C%231.jpg", "images/x/c#1.jpg"),
        (unicodedata.normalize("NFD", "images/Köln.png"), unicodedata.normalize("NFC", "images/Köln.png")),
        ("images/köln.png", unicodedata.normalize("NFC", "images/Köln.png")),
        ("../a b.jpg", "a b.jpg"),
        ("b.jpg", None),
        ("", None),
        ("\0", None),
        ("\ud800.jpg", None),
        ("http://[", None),
    ],
)
def test_forms_of_names(finder, name, expected):
    assert finder.find_similar(name) == (expected and expected.replace("/", os.sep))


def test_exact_names(finder):
    assert "a b.jpg" in finder and "images/IMG_1.JPG" in finder
    assert "images" not in finder and "nowhere/a.jpg" not in finder and "a\0b" not in finder


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the file system ignores case")
def test_form_of_several_files_is_not_used(finder, tmp_path):
    (tmp_path / "A B.jpg").write_bytes(b"")
    assert finder.find_similar("a B.jpg") is None and finder.find_similar("x/a b.jpg") == "a b.jpg"


def test_nearest(finder):
    assert finder.nearest("images/IMG_2.JPG") == os.path.join("images", "IMG_1.JPG")
    assert finder.nearest("elsewhere/a_b.jpg") == "a b.jpg"
    assert finder.nearest("zzzz") is None
