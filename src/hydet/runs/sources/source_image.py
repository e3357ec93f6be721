"""One image of a source."""

from __future__ import annotations

import dataclasses

from torch import Tensor

__all__ = ["SourceImage"]


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image of a source, or the reason why it cannot be read.

    Args:
        image: ``(3, H, W)`` uint8 RGB; None if the image cannot be read.
        name: path, address, or a name such as ``"image 3"``.
        error: one line that names the image and what is wrong with it; None if the image was read.
        time: when a frame of a video is shown, in seconds; None for other images.
    """

    image: Tensor | None
    name: str
    error: str | None = None
    time: float | None = None
