"""The frames of a video file as images to predict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hydet.data.videos.reading import VIDEO_SUFFIXES, VideoReader

from .source_image import SourceImage

__all__ = ["is_video_file", "read_video"]


def is_video_file(path: str | os.PathLike[str]) -> bool:
    """Return True for a file whose ending is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES and os.path.isfile(path)


def read_video(video: VideoReader) -> Iterator[SourceImage]:
    """Yield the frames in order, one at a time; damaged ones have an error."""
    for frame in video:
        name = f"{video.path} frame {frame.index}"
        yield SourceImage(frame.image, name, frame.error, time=frame.time)
