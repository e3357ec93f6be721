"""Find the images to predict, and choose the names of the drawn images."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hydet.data import DataError
from hydet.data.images.files import check_regular_file

__all__ = ["IMAGE_SUFFIXES", "drawing_names", "find_images"]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)


def find_images(pattern: str) -> list[Path]:
    """Return the image files at a path: the file itself, all images below a folder, or the matches of a pattern.

    Raises:
        FileNotFoundError: if there is no such file or folder, or nothing matches.
        DataError: if a folder holds no image, or the path is a named pipe, a device or a dead link.
    """
    path = Path(pattern)
    if path.is_file():
        return [path]
    if not path.is_dir() and (path.exists() or path.is_symlink()):
        check_regular_file(path)  # raises an error that says what it is
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
        if not files:
            raise DataError(f"{pattern}: the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return files
    files = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
    if not files:
        raise FileNotFoundError(f"{pattern}: no such file or folder, and no file matches it")
    return files


def drawing_names(files: Sequence[Path]) -> list[Path]:
    """Return a distinct relative path for each drawn image, with the folder structure of the files."""
    root = _common_folder(files)
    names = [f.relative_to(root).with_suffix(".png") for f in files]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f.relative_to(root).with_name(f"{f.name}.png")
        for f, name in zip(files, names, strict=True)
    ]


def _common_folder(files: Sequence[Path]) -> Path:
    parents = [p.parent for p in files]
    common = parents[0]
    while not all(p == common or common in p.parents for p in parents):
        common = common.parent
    return common
