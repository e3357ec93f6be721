"""The results of one call of ``Detector.predict``, computed as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydet.data.videos.writing import write_video

from .result import Result

__all__ = ["Results"]

DEFAULT_RATE = 25.0  # frames per second of a video made of images


class Results:
    """The results of a source, in the order of its images.

    Images are read and predicted during the iteration, so a folder of any size needs the memory of one batch. An index,
    as in ``results[0]``, predicts the images up to that one and keeps their results; ``list(results)`` predicts all.

    Args:
        stream: the results; consumed once.
        failed: filled by ``stream``; see the attribute.
        rate: frames per second of a video; None for other images.
        count: number of images, if it is known before they are read.

    Attributes:
        failed: one line per image so far that could not be read. Such an image has no result; the ``index`` of the
            other results counts it.
    """

    def __init__(
        self,
        stream: Iterable[Result],
        failed: list[str],
        *,
        rate: float | None = None,
        count: int | None = None,
    ) -> None:
        self.failed = failed
        self.rate = rate
        self.count = count
        self._stream = iter(stream)
        self._kept: list[Result] = []
        self._num_passed = 0  # results that an iteration has handed out without keeping them

    def __iter__(self) -> Iterator[Result]:
        """Yield all results; a second iteration is an error, because the first one kept nothing.

        Raises:
            RuntimeError: if results were iterated over before.
        """
        self._check_complete()
        yield from self._kept
        for result in self._stream:
            self._num_passed += 1
            yield result

    def __getitem__(self, index: int) -> Result:
        """Return the result at a position among the images that could be read.

        Raises:
            IndexError: if there are not that many results.
            RuntimeError: if an iteration has passed results without keeping them.
        """
        self._check_complete()
        while not 0 <= index < len(self._kept):
            result = next(self._stream, None)
            if result is None:
                break
            self._kept.append(result)
        try:
            return self._kept[index]
        except IndexError:
            raise IndexError(
                f"there are {len(self._kept)} results, so there is no results[{index}]"
            ) from None

    def save_video(self, path: str | Path, *, rate: float | None = None, **options: Any) -> Path:
        """Predict all images and write the drawings as a video, one frame at a time. Needs ``hydet[video]``.

        Frames keep their times; damaged ones are left out. Sound is not copied.

        Args:
            path: the file, which ends in ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``.
            rate: frames per second; by default that of the video, or 25 for images.
            options: see :meth:`hydet.Result.plot`.

        Returns:
            ``path``.

        Raises:
            ValueError: if videos are not written with this ending.
            DataError: if there are no results.
            WriteError: if the file cannot be written.
        """
        frames_per_second = rate or self.rate or DEFAULT_RATE
        with write_video(path, rate=frames_per_second) as video:
            for result in self:
                time = result.time if rate is None else None
                video.write(
                    result.draw(**options), time=result.index / frames_per_second if time is None else time
                )
        return Path(path)

    def _check_complete(self) -> None:
        if self._num_passed:
            raise RuntimeError(
                "the results were iterated over already, which keeps none of them; "
                "collect them with list(detector.predict(...))"
            )

    def __repr__(self) -> str:
        """Return the number of results that are kept."""
        return f"Results({len(self._kept)} kept, {len(self.failed)} images failed)"
