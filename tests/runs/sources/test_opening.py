"""Everything that holds images."""

import numpy as np
import pytest
import torch
from PIL import Image

from hydet.data import DataError, ImageReader
from hydet.runs.sources import open_source


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def read(source, **options):
    return open_source(source, read=ImageReader(), **options)


def reds(source):
    return [int(image.image[0, 0, 0]) for image in source]


def test_one_image(folder):
    path = folder / "2.png"
    for item in (path, str(path), path.read_bytes(), Image.open(path), np.full((6, 8, 3), 2, dtype=np.uint8)):
        source = read(item)
        assert source.is_single and source.count == 1
        assert reds(source) == [2]
    assert [image.name for image in read(path)] == [str(path)]
    assert [image.name for image in read(Image.open(path))] == [str(path)]
    assert [image.name for image in read(torch.zeros(3, 4, 4))] == ["image 0"]


def test_folders_patterns_and_lists(folder):
    for item in (folder, str(folder), f"{folder}/*.png", sorted(folder.iterdir())):
        source = read(item)
        assert not source.is_single and source.count == 3
        assert reds(source) == [0, 1, 2]
    mixed = read([folder / "1.png", folder, torch.full((3, 2, 2), 9, dtype=torch.uint8)])
    assert mixed.count is None
    assert reds(mixed) == [1, 0, 1, 2, 9]


def test_generators_are_read_as_needed():
    taken = []

    def images():
        for i in range(3):
            taken.append(i)
            yield torch.full((3, 2, 2), i, dtype=torch.uint8)

    source = read(images())
    assert taken == [] and source.count is None
    iterator = iter(source)
    assert next(iterator).name == "image 0" and taken == [0]
    assert [image.name for image in iterator] == ["image 1", "image 2"]


def test_files_that_cannot_be_read_are_named(folder):
    (folder / "1.png").write_bytes(b"no image")
    images = list(read([folder / "0.png", folder / "1.png", folder / "gone.png", b"nothing"]))
    assert [image.image is None for image in images] == [False, True, True, True]
    assert [image.name for image in images[1:3]] == [str(folder / "1.png"), str(folder / "gone.png")]
    for image, name in zip(images[1:], ("1.png", "gone.png", "image 2")):
        assert name in image.error


def test_mistakes_of_the_caller(folder):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read(folder / "gone.png")
    with pytest.raises(DataError, match="holds no image"):
        (folder / "empty").mkdir()
        read(folder / "empty")
    with pytest.raises(TypeError, match="got int"):
        read(3)
    with pytest.raises(TypeError, match=r"image 1: .* got float"):
        list(read([np.zeros((2, 2)), 0.5]))
    with pytest.raises(ValueError, match=r"image 1: .* got \(2,\)"):
        list(read([np.zeros((2, 2)), np.zeros(2)]))
    with pytest.raises(ValueError, match="channels"):
        read(folder, channels="rgb")
