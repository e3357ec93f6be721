"""Drawn results of ``predict``: images in a folder, or one video."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from hydet.data.videos.writing import write_video
from hydet.runs.image_files import drawing_names
from hydet.runs.result import Result
from hydet.visualization import save_png

__all__ = ["DrawnImages", "DrawnVideo"]


class DrawnImages:
    """Writes each drawing as a PNG file.

    Args:
        folder: folder of the drawings.
        files: the images, whose folders the drawings repeat; empty for the frames of a video, which are numbered.
    """

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder = folder
        self._names = dict(zip(map(str, files), drawing_names(files), strict=True)) if files else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep what was written."""

    def add(self, result: Result, drawing: Tensor) -> None:
        """Write one drawing, ``(3, H, W)`` uint8 RGB."""
        name = self._names.get(result.name, Path(f"frame_{result.index:06d}.png"))
        save_png(drawing, self.folder / name)

    def describe(self) -> str:
        """Return a line about what was written."""
        return f"pictures: {self.folder}"


class DrawnVideo:
    """Writes the drawings as a video, which appears when the block ends without an error.

    Args:
        path: the video file.
        rate: frames per second.
    """

    def __init__(self, path: Path, *, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._video = self._stack.enter_context(write_video(self.path, rate=self.rate))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the video, or discard it after an error."""
        self._stack.__exit__(kind, error, traceback)

    def add(self, result: Result, drawing: Tensor) -> None:
        """Append one drawing, ``(3, H, W)`` uint8 RGB, at its time."""
        time = result.index / self.rate if result.time is None else result.time
        self._video.write(drawing, time=time)

    def describe(self) -> str:
        """Return a line about what was written."""
        return f"video: {self.path}"
