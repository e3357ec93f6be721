"""Find out what a source is, and read its images one at a time."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from hydet.data import DataError, ImageReader
from hydet.data.images.files import describe_error
from hydet.data.videos.reading import VideoReader
from hydet.runs.image_files import find_images

from .downloads import download_image, is_address
from .in_memory import Channels, convert_image
from .source_image import SourceImage
from .videos import is_video_file, read_video

__all__ = ["Source", "open_source"]


@dataclasses.dataclass(frozen=True)
class Source:
    """Images that are read one at a time, when they are iterated over.

    Args:
        images: the images in order; may be iterable only once.
        count: number of images, if it is known before they are read.
        is_single: True for one image that the user named as such, which raises its error instead of being skipped.
        rate: frames per second of a video; None for other images.
    """

    images: Iterable[SourceImage]
    count: int | None = None
    is_single: bool = False
    rate: float | None = None

    def __iter__(self) -> Iterator[SourceImage]:
        return iter(self.images)


def open_source(source: object, *, read: ImageReader, channels: Channels = "RGB") -> Source:
    """Open anything that holds images.

    Args:
        source: one image: the path of a file, an ``http(s)://`` address, the content of a file as bytes, a Pillow image,
            an array or a tensor (see :func:`hydet.runs.sources.in_memory.convert_image`); or several: a folder, a pattern
            such as ``"photos/*.jpg"``, a video file, or an iterable of any of these, such as a list or a generator.
        read: reads the files; its ``value_range`` also applies to images in memory.
        channels: order of the channels of arrays and tensors.

    Returns:
        The images. Files are found now; files, addresses and generators are read during the iteration.

    Raises:
        FileNotFoundError: if a path does not exist, and no file matches it.
        DataError: if a folder holds no image.
        ValueError: if ``channels`` is unknown.
        TypeError: if ``source`` is nothing of the above.
    """
    if channels not in ("RGB", "BGR"):
        raise ValueError(f'channels must be "RGB" or "BGR", got {channels!r}')
    reader = _Reader(read, channels)
    if isinstance(source, str | os.PathLike) and not is_address(os.fspath(source)):
        path = os.fspath(source)
        if is_video_file(path):
            return _open_video(path, read)
        files = find_images(path)
        return Source((reader.read(file, 0) for file in files), len(files), is_single=os.path.isfile(path))
    if _is_image(source):
        return Source((reader.read(item, 0) for item in (source,)), 1, is_single=True)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        count = len(source) if isinstance(source, Sequence) and all(map(_is_one_image, source)) else None
        return Source(reader.read_all(source), count)
    raise TypeError(
        "an image, path, folder, pattern, address, or a list or generator of these is expected, "
        f"got {type(source).__name__}"
    )


def _open_video(path: str, read: ImageReader) -> Source:
    video = VideoReader(path, max_pixels=read.max_pixels)
    return Source(read_video(video), video.count, rate=float(video.rate))


def _is_image(source: object) -> bool:
    """Return True for an image in memory or an address."""
    return isinstance(source, Image.Image | np.ndarray | Tensor | bytes) or (
        isinstance(source, str) and is_address(source)
    )


def _is_one_image(item: object) -> bool:
    """Return True if an item of a list stands for exactly one image."""
    return _is_image(item) or (
        isinstance(item, str | os.PathLike) and os.path.isfile(item) and not is_video_file(item)
    )


class _Reader:
    """Reads single images of any kind.

    Args:
        read: reads files.
        channels: order of the channels of arrays and tensors.
    """

    def __init__(self, read: ImageReader, channels: Channels) -> None:
        self._read_file = read
        self._channels = channels

    def read_all(self, items: Iterable[object]) -> Iterator[SourceImage]:
        """Yield the images of every item; an item may be a folder or a pattern."""
        index = 0
        for item in items:
            if isinstance(item, str | os.PathLike) and is_video_file(item):
                try:
                    video = VideoReader(os.fspath(item), max_pixels=self._read_file.max_pixels)
                except DataError as error:
                    yield SourceImage(None, os.fspath(item), str(error))
                    continue
                for frame in read_video(video):
                    yield frame
                    index += 1
            elif isinstance(item, str | os.PathLike) and not _is_one_image(item):
                try:
                    files: Sequence[Path] = find_images(os.fspath(item))
                except (OSError, DataError) as error:
                    yield SourceImage(None, os.fspath(item), str(error))
                    continue
                for file in files:
                    yield self.read(file, index)
                    index += 1
            else:
                yield self.read(item, index)
                index += 1

    def read(self, item: object, index: int) -> SourceImage:
        """Read one image.

        Args:
            item: a path of a file, an address, the content of a file, or an image in memory.
            index: position of the image, which names it if nothing else does.

        Raises:
            ValueError: if an image in memory has the wrong shape or dtype; the message has its position.
            TypeError: if the item is none of these.
        """
        name = _name_of(item, index)
        try:
            if isinstance(item, bytes):
                return SourceImage(self._read_file.decode(item, name=name), name)
            if isinstance(item, str) and is_address(item):
                content = download_image(item, max_bytes=self._read_file.max_bytes)
                return SourceImage(self._read_file.decode(content, name=name), name)
            if isinstance(item, str | os.PathLike):
                return SourceImage(self._read_file(Path(item)), name)
        except DataError as error:
            return SourceImage(None, name, str(error))
        if not isinstance(item, Image.Image | np.ndarray | Tensor):
            raise TypeError(f"{name}: an image or a path is expected, got {type(item).__name__}")
        try:
            pixels = convert_image(item, channels=self._channels, value_range=self._read_file.value_range)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        except OSError as error:  # a Pillow image whose file is damaged
            return SourceImage(None, name, f"{name} is not a readable image: {describe_error(error)}")
        return SourceImage(pixels, name)


def _name_of(item: object, index: int) -> str:
    if isinstance(item, str | os.PathLike):
        return os.fspath(item)
    if isinstance(item, Image.Image):
        return str(getattr(item, "filename", "")) or f"image {index}"
    return f"image {index}"
