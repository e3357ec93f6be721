"""Lines, points and labels on a picture, in widths and sizes that suit it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hydet.visualization.palette import Color, text_color

Point = tuple[float, float]


def as_rgb(image: Tensor) -> Tensor:
    """Check a picture and bring it to the CPU as uint8 ``(3, H, W)``; grey becomes RGB.

    Raises:
        TypeError: if it is not a tensor of dtype uint8.
        ValueError: if it is not ``(3, H, W)`` or ``(1, H, W)``, or has no pixels.
    """
    if not isinstance(image, Tensor) or image.dtype != torch.uint8:
        came = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"a picture is a uint8 tensor of shape (3, H, W), got {came}")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(f"a picture has shape (3, H, W), got {tuple(image.shape)}")
    return image.detach().cpu().expand(3, -1, -1)


@functools.lru_cache(maxsize=32)
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, ``size`` pixels high."""
    return ImageFont.load_default(size)


def line_width(height: int, width: int) -> int:
    """Width of lines, in pixels, for a picture of this size."""
    return max(1, round(0.055 * math.sqrt(height * width) ** 0.6))


def font_size(height: int, width: int) -> int:
    """Height of letters, in pixels, for a picture of this size."""
    return max(10, round(0.32 * math.sqrt(height * width) ** 0.6))


class Canvas:
    """A picture to draw on.

    Lines and points are drawn several times enlarged and reduced again, which smooths them; pixels that nothing
    is drawn on come out unchanged. Labels come last, on top of everything.

    Args:
        image: uint8 ``(3, H, W)``.
    """

    def __init__(self, image: Tensor) -> None:
        array = as_rgb(image).permute(1, 2, 0).contiguous().numpy()
        self.height, self.width = array.shape[:2]
        self.line = line_width(self.height, self.width)
        longest = max(self.height, self.width)
        self._factor = 3 if longest <= 700 else 2 if longest <= 1600 else 1
        picture = Image.fromarray(array)
        size = (self.width * self._factor, self.height * self._factor)
        self._picture = picture.resize(size, Image.Resampling.NEAREST) if self._factor > 1 else picture
        self._draw = ImageDraw.Draw(self._picture)
        self._labels: list[tuple[str, tuple[float, float, float, float], Color]] = []

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        limit = 4.0 * max(self.width, self.height)  # far beyond the border; keeps the drawing library safe
        return [
            (min(max(x, -limit), limit) * self._factor, min(max(y, -limit), limit) * self._factor)
            for x, y in points
        ]

    def path(
        self, points: Sequence[Point], color: Color, *, closed: bool = False, width: float = 1.0
    ) -> None:
        """Draw a line through points given as ``(x, y)`` pixels; ``width`` is relative to the usual one."""
        corners = self._scaled([*points, points[0]] if closed else points)
        pixels = max(1, round(self.line * self._factor * width))
        self._draw.line(corners, fill=color, width=pixels, joint="curve")
        if closed and pixels > 2:
            self._dot(corners[0], pixels / 2, color)

    def box(self, box: Sequence[float], color: Color, *, dashed: bool = False) -> None:
        """Draw the outline of an ``(x1, y1, x2, y2)`` box, kept inside the picture by half a line."""
        half = self.line / 2  # edges cover whole pixels, so that they are crisp
        x1, x2 = (round(min(max(x, half), self.width - half) - half) + half for x in (box[0], box[2]))
        y1, y2 = (round(min(max(y, half), self.height - half) - half) + half for y in (box[1], box[3]))
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        for vertical, start, end, across in (
            (0, x1, x2, y1),
            (0, x1, x2, y2),
            (1, y1, y2, x1),
            (1, y1, y2, x2),
        ):
            dash = 4 * self.line if dashed else end - start + 1
            for low in np.arange(start, end + 1e-3, 2 * dash):
                high = min(low + dash, end)
                corners = [(low - half, across - half), (high + half, across + half)]
                (left, top), (right, bottom) = self._scaled([c[::-1] if vertical else c for c in corners])
                self._draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), fill=color)

    def point(self, x: float, y: float, color: Color, *, filled: bool = True) -> None:
        """Draw a dot with a thin dark rim, or a ring if not ``filled``."""
        ((px, py),) = self._scaled([(x, y)])
        radius = max(1.5, 1.5 * self.line) * self._factor
        self._dot((px, py), radius + 0.5 * self._factor, (0, 0, 0))
        self._dot((px, py), radius, color)
        if not filled:
            self._dot((px, py), 0.5 * radius, (0, 0, 0))

    def _dot(self, center: Point, radius: float, color: Color) -> None:
        x, y = center
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def label(self, text: str, box: Sequence[float], color: Color) -> None:
        """Write ``text`` on a plate of ``color`` at an ``(x1, y1, x2, y2)`` box, or centred on it if it is a point."""
        if text:
            x1, y1, x2, y2 = (float(v) for v in box)
            self._labels.append((text, (x1, y1, x2, y2), color))

    def finish(self) -> Tensor:
        """Write the labels and return the picture as uint8 ``(3, H, W)``.

        A label that would hide half of its own size of earlier ones is left out.
        """
        picture = self._picture.reduce(self._factor) if self._factor > 1 else self._picture
        draw = ImageDraw.Draw(picture)
        size = font_size(self.height, self.width)
        taken: list[tuple[float, float, float, float]] = []
        for text, box, color in self._labels:
            plate, font, hidden = self._place(draw, text, box, size, taken)
            if hidden > 0.5:
                continue
            taken.append(plate)
            draw.rounded_rectangle(plate, radius=size / 5, fill=color)
            center = ((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2)
            draw.text(center, text, fill=text_color(color), font=font, anchor="mm")
        array = np.array(picture)
        return torch.from_numpy(array).permute(2, 0, 1).contiguous()

    def _place(
        self,
        draw: ImageDraw.ImageDraw,
        text: str,
        box: tuple[float, float, float, float],
        size: int,
        taken: Sequence[tuple[float, float, float, float]],
    ) -> tuple[tuple[float, float, float, float], ImageFont.FreeTypeFont | ImageFont.ImageFont, float]:
        """Find the place for a label's plate that hides least of the labels so far, and the share of it that does."""
        font = font_of(size)
        while size > 7 and draw.textlength(text, font=font) > 0.9 * self.width:
            size -= 1
            font = font_of(size)
        width = math.ceil(draw.textlength(text, font=font) + 0.5 * size)
        height = math.ceil(1.25 * size)
        x1, y1, x2, y2 = box
        if x1 == x2 and y1 == y2:
            corners = [(x1 - width / 2, y1 + shift * height - height / 2) for shift in (0, 1, -1, 2, -2)]
        else:
            left, right, half = x1 - self.line / 2, x2 - width + self.line / 2, self.line / 2
            corners = [(left, y1 - half - height)] if y1 - height >= 0 else []  # above, if there is room
            corners += [
                (left, y1 + half),
                (left, y2 + half),
                (right, y1 - half - height),
                (right, y2 - half - height),
            ]
        best, least = (0.0, 0.0, 0.0, 0.0), math.inf
        for x, y in corners:
            x = round(min(max(x, 0), max(self.width - width, 0)))
            y = round(min(max(y, 0), max(self.height - height, 0)))
            plate = (x, y, x + width, y + height)
            hidden = sum(_overlap(plate, other) for other in taken)
            if hidden < least:
                best, least = plate, hidden
            if hidden == 0:
                break
        return best, font, least / (width * height)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
