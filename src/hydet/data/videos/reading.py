"""Reading of the frames of a video, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydet.data.errors import DataError
from hydet.data.images.files import check_regular_file
from hydet.data.images.reading import MAX_PIXELS

from .pyav import import_av

__all__ = ["VIDEO_SUFFIXES", "VideoFrame", "VideoReader"]

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".mts",
        ".m2ts",
        ".wmv",
        ".flv",
        ".3gp",
    }
)

_DEFAULT_RATE = Fraction(25)


@dataclasses.dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    Args:
        image: ``(3, H, W)`` uint8 RGB, upright; None if the frame is damaged.
        index: position in the video, from 0; damaged frames count.
        time: when the frame is shown, in seconds.
        error: one line that names the frame and what is wrong with it; None if it was read.
    """

    image: Tensor | None
    index: int
    time: float
    error: str | None = None


class VideoReader:
    """The frames of a video file. Each iteration decodes the video anew, and holds one frame at a time.

    Frames are turned as the rotation stored in the file says, as players do. Each has its own time, so videos with a
    variable frame rate keep their timing.

    Args:
        path: a video file.
        max_pixels: largest number of pixels per frame.

    Attributes:
        path: the file.
        count: number of frames that the file states; None if it states none.
        rate: average number of frames per second.

    Raises:
        ImportError: if PyAV is not installed.
        DataError: if the file cannot be read, is no video, or its frames are too large; names it.
    """

    def __init__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
        self.path = Path(path)
        self._av = import_av()
        check_regular_file(self.path)
        with self._open() as container:
            stream = self._stream_of(container)
            pixels = int(stream.width or 0) * int(stream.height or 0)
            if pixels > max_pixels:
                raise DataError(
                    f"{self.path}: frames of {stream.width} x {stream.height} pixels are larger than "
                    f"max_pixels={max_pixels}"
                )
            self.count: int | None = int(stream.frames) or None
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)

    def _open(self) -> Any:
        try:
            return self._av.open(str(self.path))
        except (self._av.error.FFmpegError, OSError) as error:
            raise DataError(f"{self.path} is not a readable video: {_reason(error)}") from error

    def _stream_of(self, container: Any) -> Any:
        if not container.streams.video:
            raise DataError(f"{self.path} has no video track")
        return container.streams.video[0]

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield all frames in order; damaged ones have an ``error``.

        A damaged frame can take others with it, which depend on it and which the decoder drops without a word. Then, the
        last item is no frame, and its ``error`` tells how many are lost.
        """
        with self._open() as container:
            index = num_failed = num_packets = 0
            for packet in self._packets(container):
                time: float | None = None
                frames: list[Any] = []
                error: Exception | None = packet if isinstance(packet, Exception) else None
                if error is None:
                    num_packets += packet.size > 0  # the last one is empty and only drains the decoder
                    if packet.pts is not None:
                        time = float(packet.pts * packet.time_base)
                    try:
                        frames = packet.decode()
                    except (self._av.error.FFmpegError, ValueError) as decoding_error:
                        error = decoding_error
                for decoded in frames:
                    frame = self._convert(decoded, index)
                    num_failed += frame.error is not None
                    yield frame
                    index += 1
                if error is not None:
                    yield self._damaged(index, time, _reason(error))
                    index += 1
                    num_failed += 1
            num_lost = num_packets - index
            if num_failed and num_lost > 0:
                yield VideoFrame(
                    None, index, self._time(None, index), f"{self.path}: {num_lost} more frames are lost"
                )

    def _packets(self, container: Any) -> Iterator[Any]:
        """Yield packets of the video track, and the error in place of what cannot be read behind it."""
        packets = container.demux(self._stream_of(container))
        while True:
            try:
                packet = next(packets, None)
            except (self._av.error.FFmpegError, OSError) as error:
                yield error
                return
            if packet is None:
                return
            yield packet

    def _convert(self, frame: Any, index: int) -> VideoFrame:
        if frame.is_corrupt:
            return self._damaged(index, frame.time, "its data are damaged")
        pixels = frame.to_ndarray(format="rgb24")  # (H, W, 3)
        turns = round(frame.rotation / 90) % 4  # counterclockwise
        upright = np.ascontiguousarray(np.rot90(pixels, turns).transpose(2, 0, 1))
        return VideoFrame(torch.from_numpy(upright), index, self._time(frame.time, index))

    def _damaged(self, index: int, time: float | None, reason: str) -> VideoFrame:
        seconds = self._time(time, index)
        error = f"{self.path}: frame {index} at {seconds:.2f} s cannot be read: {reason}"
        return VideoFrame(None, index, seconds, error)

    def _time(self, time: float | None, index: int) -> float:
        return float(index / self.rate) if time is None else float(time)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().lower() or type(error).__name__
