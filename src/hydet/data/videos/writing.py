"""Writing of a video file, frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from hydet.data.errors import DataError
from hydet.files import atomic_file

from .pyav import import_av

__all__ = ["OUTPUT_SUFFIXES", "VideoWriter", "write_video"]

# Suffix -> container, and codecs from the preferred one to the one that each build of FFmpeg has.
_FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    ".mp4": ("mp4", ("libx264", "mpeg4")),
    ".m4v": ("mp4", ("libx264", "mpeg4")),
    ".mov": ("mov", ("libx264", "mpeg4")),
    ".mkv": ("matroska", ("libx264", "mpeg4")),
    ".webm": ("webm", ("libvpx-vp9", "libvpx")),
}
OUTPUT_SUFFIXES = frozenset(_FORMATS)

_TIME_BASE = Fraction(1, 90000)  # in which any frame rate has whole steps, or nearly so


class VideoWriter:
    """Encodes the frames of a video; made by :func:`write_video`.

    Args:
        container: an open container of PyAV.
        codec: name of the encoder.
        rate: average number of frames per second.
    """

    def __init__(self, container: Any, codec: str, rate: Fraction) -> None:
        self._av = import_av()
        self._container = container
        self._codec = codec
        self._rate = rate
        self._stream: Any = None
        self._size = (0, 0)
        self._last_pts = -1

    def write(self, image: Tensor, *, time: float) -> None:
        """Append a frame.

        Args:
            image: ``(3, H, W)`` uint8 RGB. The first frame sets the size of the video; others are resized to it.
            time: when the frame is shown, in seconds; later than the frame before.
        """
        size = (int(image.shape[1]), int(image.shape[2]))
        if self._stream is None:
            self._add_stream(size)
        if size != self._size:
            image = F.interpolate(image[None], self._size, mode="bilinear", antialias=True)[0]
        pixels = image.permute(1, 2, 0).contiguous().numpy()  # (3, H, W) -> (H, W, 3)
        # Encoders take even sides only.
        pixels = np.pad(pixels, [(0, self._size[0] % 2), (0, self._size[1] % 2), (0, 0)], mode="edge")
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.time_base = _TIME_BASE
        frame.pts = self._last_pts = max(round(time / _TIME_BASE), self._last_pts + 1)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the frames that the encoder still holds.

        Raises:
            DataError: if there were no frames.
        """
        if self._stream is None:
            raise DataError("no video is written, because there are no frames")
        self._container.mux(self._stream.encode(None))

    def _add_stream(self, size: tuple[int, int]) -> None:
        self._stream = self._container.add_stream(self._codec, rate=self._rate)
        self._size = size
        self._stream.height, self._stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._stream.pix_fmt = "yuv420p"  # which every player shows
        self._stream.codec_context.time_base = _TIME_BASE


@contextlib.contextmanager
def write_video(path: str | Path, *, rate: Fraction | float) -> Iterator[VideoWriter]:
    """Write frames to a video file, which appears when the block ends without an error.

    ::

        with write_video("out.mp4", rate=30) as video:
            video.write(image, time=0.0)

    Args:
        path: the file; its suffix selects the container: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``.
        rate: average number of frames per second, for the encoder; each frame has its own time.

    Raises:
        ImportError: if PyAV is not installed.
        ValueError: if the suffix is none of the above.
        DataError: if there were no frames.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: videos are written as {', '.join(sorted(_FORMATS))}, got '{path.suffix}'")
    av = import_av()
    container_format, codecs = _FORMATS[path.suffix.lower()]
    codec = next((name for name in codecs if name in av.codecs_available), codecs[-1])
    with (
        atomic_file(path) as unfinished,
        av.open(str(unfinished), "w", format=container_format) as container,
    ):
        writer = VideoWriter(container, codec, Fraction(rate).limit_denominator(1001))
        yield writer
        writer.finish()
