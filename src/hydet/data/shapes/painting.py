"""Backgrounds, textures and colors of the generated images.

Colors and brightness are floats in [0, 1] until an image is finished.
"""

from __future__ import annotations

import colorsys
import math
from typing import NamedTuple

import numpy as np

from hydet.data.shapes.scene_style import SceneStyle

__all__ = ["TEXTURES", "Background", "draw_background", "paint_background", "paint_objects"]

TEXTURES = ("smooth", "striped", "checkered", "grainy")
# Steps of this fraction of the color wheel, the golden angle, give distinct hues for any number of objects.
_HUE_STEP = 0.381966
_EDGE_BRIGHTNESS = 0.72  # of the pixels at the border of an object


class Background(NamedTuple):
    """The background of an image, divided into R (one or two) regions.

    Args:
        regions: ``(H, W)`` uint8 region numbers from 1.
        textures: index in ``TEXTURES`` of each region.
        colors: ``(R, 3)`` RGB of each region.
    """

    regions: np.ndarray
    textures: tuple[int, ...]
    colors: np.ndarray


def draw_background(rng: np.random.Generator, height: int, width: int, style: SceneStyle) -> Background:
    """Draw the regions of a random background, with their textures and colors."""
    textures = rng.permutation(len(TEXTURES)) if style.textures else np.zeros(2, dtype=np.int64)
    regions = np.ones((height, width), dtype=np.uint8)
    split, angle, offset = rng.random(3)
    num_regions = 1
    if split < 0.5 and style.textures:
        x, y = np.arange(width) / width - 0.5, np.arange(height) / height - 0.5
        # (H, W) signed distance from a line through the center
        distance = math.cos(angle * np.pi) * x + math.sin(angle * np.pi) * y[:, None]
        regions += (distance > (offset - 0.5) * 0.5).astype(np.uint8)
        num_regions = 2
    hues, saturations = rng.random(2), rng.uniform(0.05, 0.3, 2)
    is_dark = rng.random() < 0.5
    values = rng.uniform(0.15, 0.4, 2) if is_dark else rng.uniform(0.65, 0.9, 2)
    colors = np.array([colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues, saturations, values)])
    return Background(regions, tuple(int(t) for t in textures[:num_regions]), colors[:num_regions])


def paint_background(rng: np.random.Generator, background: Background) -> np.ndarray:
    """Paint a background with uneven light and textures on a ``(H, W, 3)`` float32 canvas."""
    height, width = background.regions.shape
    slope = rng.uniform(-0.12, 0.12, 2)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    brightness = (1 + slope[0] * x + slope[1] * y).astype(np.float32)  # (H, W)
    for region, texture in enumerate(background.textures, start=1):
        pattern = _draw_texture(rng, TEXTURES[texture], height, width)
        if pattern is not None:
            only_region = len(background.textures) == 1
            brightness += pattern if only_region else pattern * (background.regions == region)
    # Regions count from 1, so the color of region 0 is not used.
    palette = np.concatenate([np.zeros((1, 3)), background.colors]).astype(np.float32)
    return np.asarray(palette[background.regions] * brightness[..., None])


def _draw_texture(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray | None:
    """Return ``(H, W)`` float32 changes of the relative brightness, with mean 0; None for no texture."""
    angle, period, strength = rng.uniform(0, np.pi), rng.uniform(7, 16), rng.uniform(0.1, 0.16)
    if name == "smooth":
        return None
    if name == "grainy":  # grains of 2 x 2 pixels
        half_height, half_width = (height + 1) // 2, (width + 1) // 2
        noise = np.frombuffer(rng.bytes(half_height * half_width), dtype=np.uint8)
        grain = noise.reshape(half_height, half_width).astype(np.float32) / 255 - 0.5
        return (grain * (2.4 * strength)).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    if name == "striped":
        x = np.arange(width, dtype=np.float32) * (math.cos(angle) / period)
        y = np.arange(height, dtype=np.float32)[:, None] * (math.sin(angle) / period)
        return np.asarray((np.floor(x + y) % 2 - 0.5).astype(np.float32) * strength)
    columns = np.floor(np.arange(width) / period)
    rows = np.floor(np.arange(height) / period)[:, None]
    return np.asarray(((columns + rows) % 2 - 0.5).astype(np.float32) * strength)


def paint_objects(
    rng: np.random.Generator,
    canvas: np.ndarray,
    ids: np.ndarray,
    background_colors: np.ndarray,
    num_objects: int,
    style: SceneStyle,
) -> np.ndarray:
    """Paint the objects on a canvas and add noise.

    Args:
        rng: source of randomness.
        canvas: ``(H, W, 3)`` float32, changed in place.
        ids: ``(H, W)`` uint8: 1 ... R for the background regions, the next numbers for the objects.
        background_colors: ``(R, 3)`` RGB.
        num_objects: number of objects.
        style: appearance and difficulty.

    Returns:
        ``(H, W, 3)`` uint8 image.
    """
    first_id = len(background_colors) + 1
    if num_objects:
        palette = np.zeros((first_id + num_objects, 3), dtype=np.float32)
        palette[first_id:] = _draw_object_colors(rng, background_colors, num_objects, style.contrast)
        paint = palette[ids]
        is_edge = np.zeros(ids.shape, dtype=bool)
        changes_across, changes_down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
        is_edge[:, 1:] |= changes_across
        is_edge[:, :-1] |= changes_across
        is_edge[1:] |= changes_down
        is_edge[:-1] |= changes_down
        paint[is_edge] *= _EDGE_BRIGHTNESS
        np.copyto(canvas, paint, where=(ids >= first_id)[..., None])
    canvas *= 255
    if style.noise > 0:
        noise = np.frombuffer(rng.bytes(canvas.size), dtype=np.uint8).reshape(canvas.shape)
        canvas += noise * np.float32(2 * style.noise / 255)
        canvas -= style.noise
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _draw_object_colors(
    rng: np.random.Generator, background_colors: np.ndarray, count: int, contrast: float
) -> np.ndarray:
    """Return ``(count, 3)`` saturated colors with distinct hues.

    A color that is closer than ``contrast`` to the background is darkened if this increases the distance.
    """
    hues = (rng.random() + np.arange(count) * _HUE_STEP + rng.uniform(-0.04, 0.04, count)) % 1.0
    saturations, values = rng.uniform(0.7, 1.0, count), rng.uniform(0.7, 1.0, count)
    colors = np.array([colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues, saturations, values)])
    difference = colors[:, None] - background_colors  # (count, R, 3)
    distance = np.sqrt((difference**2).sum(axis=2))  # (count, R)
    for i in np.flatnonzero((distance < contrast).any(axis=1)):
        darker = colors[i] * 0.4
        if np.sqrt(((darker - background_colors) ** 2).sum(axis=1)).min() > distance[i].min():
            colors[i] = darker
    return colors
