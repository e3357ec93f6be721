"""Files that a user names, and names of the drawn images."""

import os

import pytest

from hydet.data import DataError
from hydet.runs.image_files import drawing_names, find_images


def test_no_two_drawings_have_the_same_name(tmp_path):
    paths = ["a/x.jpg", "b/x.jpg", "a/y.jpg", "a/y.png", "a/deep/x.jpg"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "a" / "notes.txt").touch()
    files = find_images(str(tmp_path))
    assert len(files) == len(paths)
    names = [str(n) for n in drawing_names(files)]
    assert sorted(names) == ["a/deep/x.png", "a/x.png", "a/y.jpg.png", "a/y.png.png", "b/x.png"]
    assert [str(n) for n in drawing_names([tmp_path / "a" / "x.jpg"])] == ["x.png"]


def test_a_missing_path_and_a_folder_without_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\*\.jpg"):
        find_images(str(tmp_path / "*.jpg"))
    with pytest.raises(DataError, match="holds no image"):
        find_images(str(tmp_path))


def test_paths_that_are_no_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    for name, kind in (("pipe", "a named pipe"), ("link", "a link to a file that does not exist")):
        with pytest.raises(DataError, match=rf"{name}\.jpg is {kind}"):
            find_images(str(tmp_path / f"{name}.jpg"))
    (tmp_path / "folder.jpg").mkdir()  # a folder is no image, whatever its name is
    assert [p.name for p in find_images(str(tmp_path))] == ["link.jpg", "pipe.jpg"]
