"""Lines, points and labels on an image, in sizes that suit it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hydet.visualization.fonts import DrawableText, drawable_text, shorten
from hydet.visualization.palette import Color, text_color

__all__ = ["Canvas", "Point", "as_rgb", "font_size", "line_width"]

Point = tuple[float, float]  # (x, y) in pixels
Box = tuple[float, float, float, float]  # (x1, y1, x2, y2) in pixels


def as_rgb(image: Tensor) -> Tensor:
    """Check an image and bring it to the CPU as uint8 ``(3, H, W)``; a grayscale image becomes RGB.

    Raises:
        TypeError: if it is not a tensor of dtype uint8.
        ValueError: if it is not ``(3, H, W)`` or ``(1, H, W)``, or has no pixels.
    """
    if not isinstance(image, Tensor) or image.dtype != torch.uint8:
        received = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"an image must be a uint8 tensor of shape (3, H, W), got {received}")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(f"an image must have the shape (3, H, W), got {tuple(image.shape)}")
    return image.detach().cpu().expand(3, -1, -1)


def line_width(height: int, width: int) -> int:
    """Return the width of lines, in pixels, for an image of this size."""
    # Lines grow more slowly than the image, so that they hide less of a large one.
    return max(1, round(0.055 * math.pow(height * width, 0.3)))


def font_size(height: int, width: int) -> int:
    """Return the height of letters, in pixels, for an image of this size."""
    return max(10, round(0.32 * math.pow(height * width, 0.3)))


class Canvas:
    """An image to draw on.

    Lines and points are drawn at two or three times the size and reduced at the end, which smooths them; pixels without
    lines or points stay unchanged. Labels are drawn last, on top of everything.

    Args:
        image: uint8 ``(3, H, W)``.
    """

    def __init__(self, image: Tensor) -> None:
        array = as_rgb(image).permute(1, 2, 0).contiguous().numpy()
        self.height, self.width = array.shape[:2]
        self.line = line_width(self.height, self.width)
        longest = max(self.height, self.width)
        self._factor = 3 if longest <= 700 else 2 if longest <= 1600 else 1
        base = Image.fromarray(array)
        size = (self.width * self._factor, self.height * self._factor)
        self._image = base.resize(size, Image.Resampling.NEAREST) if self._factor > 1 else base
        self._draw = ImageDraw.Draw(self._image)
        self._labels: list[tuple[str, Box, Color]] = []

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        limit = 4.0 * max(
            self.width, self.height
        )  # far beyond the border; Pillow may fail on huge coordinates
        return [
            (min(max(x, -limit), limit) * self._factor, min(max(y, -limit), limit) * self._factor)
            for x, y in points
        ]

    def path(
        self, points: Sequence[Point], color: Color, *, closed: bool = False, width: float = 1.0
    ) -> None:
        """Draw a line through points; ``width`` is a factor of the canvas's line width."""
        corners = self._scaled([*points, points[0]] if closed else points)
        pixels = max(1, round(self.line * self._factor * width))
        self._draw.line(corners, fill=color, width=pixels, joint="curve")
        if closed and pixels > 2:
            self._dot(corners[0], pixels / 2, color)

    def box(self, box: Sequence[float], color: Color, *, dashed: bool = False) -> None:
        """Draw the outline of an ``(x1, y1, x2, y2)`` box; half a line inside the image, so that its border shows it."""
        half = self.line / 2  # the rounding below lets lines cover whole pixels, so that they are sharp
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
        """Write ``text`` on a plate of ``color`` at an ``(x1, y1, x2, y2)`` box, or centered on it if it is a point."""
        if text:
            x1, y1, x2, y2 = (float(v) for v in box)
            self._labels.append((text, (x1, y1, x2, y2), color))

    def finish(self) -> Tensor:
        """Write the labels and return the image as uint8 ``(3, H, W)``.

        A label is dropped if more than half of its plate would cover earlier labels.
        """
        image = self._image.reduce(self._factor) if self._factor > 1 else self._image
        draw = ImageDraw.Draw(image)
        size = font_size(self.height, self.width)
        taken: list[Box] = []
        for text, box, color in self._labels:
            plate, label, hidden = self._find_plate(draw, text, box, size, taken)
            if hidden > 0.5:
                continue
            taken.append(plate)
            draw.rounded_rectangle(plate, radius=size / 5, fill=color)
            center = ((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2)
            draw.text(center, label.text, fill=text_color(color), font=label.font, anchor="mm")
        array = np.array(image)
        return torch.from_numpy(array).permute(2, 0, 1).contiguous()

    def _find_plate(
        self, draw: ImageDraw.ImageDraw, text: str, box: Box, size: int, taken: Sequence[Box]
    ) -> tuple[Box, DrawableText, float]:
        """Find the position for a label's plate that covers the earlier labels least.

        Returns:
            The plate, the text as it fits and its font, and the fraction of the plate that covers earlier labels.
        """
        shown, font = drawable_text(text, size)
        while size > 7 and draw.textlength(shown, font=font) > 0.9 * self.width:
            size -= 1
            shown, font = drawable_text(text, size)
        text = shorten(draw, shown, font, self.width)
        width = math.ceil(draw.textlength(text, font=font) + 0.5 * size)
        height = math.ceil(1.25 * size)
        x1, y1, x2, y2 = box
        if x1 == x2 and y1 == y2:
            corners = [(x1 - width / 2, y1 + shift * height - height / 2) for shift in (0, 1, -1, 2, -2)]
        else:
            left, right, half = x1 - self.line / 2, x2 - width + self.line / 2, self.line / 2
            corners = (
                [(left, y1 - half - height)] if y1 - height >= 0 else []
            )  # above the box, if there is space
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
        return best, DrawableText(text, font), least / (width * height)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
