"""Colors that distinguish classes and objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Color", "as_color", "palette", "shade", "text_color"]

Color = tuple[int, int, int]  # RGB in 0 to 255

_GOLDEN_ANGLE = 137.50776405
_LIGHTNESS = (0.68, 0.52, 0.84)  # cycled, so that similar hues differ in lightness
_CHROMA = (0.17, 0.09, 0.13)  # changes every 21 colors, after which hue and lightness nearly repeat


def palette(count: int, *, muted: bool = False) -> list[Color]:
    """Return distinct colors, the same in every run; a longer palette starts with a shorter one.

    Hues advance by the golden angle in OKLCH, a color space in which equal steps look equally large.

    Args:
        count: number of colors.
        muted: reduce the saturation to less than half, for the background.

    Returns:
        ``count`` RGB colors in 0 to 255.

    Raises:
        ValueError: if ``count`` is negative.

    Source: Ottosson 2020, "A perceptual color space for image processing".
    """
    if count < 0:
        raise ValueError(f"the number of colors must not be negative, got {count}")
    saturation = 0.4 if muted else 1.0
    shift = 25.0  # the first color is red
    return [
        _oklch_to_rgb(
            _LIGHTNESS[i % len(_LIGHTNESS)],
            saturation * _CHROMA[i // 21 % len(_CHROMA)],
            (shift + i * _GOLDEN_ANGLE) % 360,
        )
        for i in range(count)
    ]


def text_color(background: Color) -> Color:
    """Return black or white, the one with the higher contrast on ``background``."""
    red, green, blue = ((c / 255) ** 2.2 for c in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if luminance > 0.25 else (255, 255, 255)


def shade(color: Color, step: int) -> Color:
    """Return a slightly lighter or darker ``color``, to distinguish objects of one class; repeats every five steps."""
    factor = (1.0, 0.8, 1.2, 0.9, 1.1)[step % 5]
    if factor <= 1:
        return _clamped([c * factor for c in color])
    return _clamped([c + (255 - c) * (factor - 1) * 1.5 for c in color])


def as_color(value: Sequence[float]) -> Color:
    """Return an RGB color in 0 to 255 from metadata.

    Raises:
        ValueError: if it is not three numbers in this range.
    """
    if len(value) != 3 or not all(0 <= c <= 255 for c in value):
        raise ValueError(f"a color must be three numbers in 0 to 255, got {value!r}")
    return _clamped(value)


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> Color:
    """Convert a color to sRGB; ``hue`` in degrees. Colors outside of sRGB are clamped."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return _clamped([255 * (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055) for c in linear])


def _clamped(values: Sequence[complex | float]) -> Color:
    red, green, blue = (min(255, max(0, round(v.real))) for v in values)
    return red, green, blue
