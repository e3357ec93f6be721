"""One generated picture: a textured background, shapes that hide one another, and all that is true of them."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.polygons import rasterize_polygons
from hydet.data.shapes import outlines

__all__ = ["TEXTURES", "Scene", "SceneStyle", "draw_scene"]

TEXTURES = ("smooth", "striped", "checkered", "grainy")
_SPARE = 3  # candidates beyond those wanted, for those that turn out to be hidden
_CROWD_SHAPES = (8, 14)


@dataclasses.dataclass(frozen=True)
class SceneStyle:
    """How scenes look and how hard they are; see ``ShapesDataset``."""

    shapes: tuple[str, ...]
    min_objects: int
    max_objects: int
    min_size: float
    max_size: float
    rotation: float
    min_visibility: float
    empty_fraction: float
    crowd_fraction: float
    max_distractors: int
    contrast: float
    noise: int
    textures: bool


@dataclasses.dataclass
class Scene:
    """A picture and its annotations, n objects from front to back.

    ``ids`` gives every pixel to one region: 1 ... R are the backgrounds with the textures ``stuff``, the next n are
    the objects.
    """

    image: np.ndarray  # (H, W, 3) uint8
    ids: np.ndarray  # (H, W) uint8
    stuff: tuple[int, ...]  # texture of each background region
    classes: np.ndarray  # (n,) int64
    iscrowd: np.ndarray  # (n,) bool
    boxes: np.ndarray  # (n, 4) float32, of what is visible
    rotated_boxes: np.ndarray  # (n, 5) float32, of the whole shape
    keypoints: np.ndarray  # (n, 5, 3) float32
    areas: np.ndarray  # (n,) int64, visible pixels
    segments: list[Any]  # polygons or run-length code of what is visible


@dataclasses.dataclass
class _Candidate:
    shape: int
    polygons: list[np.ndarray]  # (V, 2) each
    box: np.ndarray  # rotated
    iscrowd: bool = False

    @property
    def area(self) -> float:
        return sum(outlines.area(p) for p in self.polygons)


def draw_scene(rng: np.random.Generator, height: int, width: int, style: SceneStyle) -> Scene:
    """Draw the picture that ``rng`` stands for."""
    regions, stuff, base = _regions(rng, height, width, style)
    candidates, wanted = _candidates(rng, height, width, style)
    lines = _distractors(rng, height, width, style)
    masks = rasterize_polygons([[p.reshape(-1) for p in c.polygons] for c in candidates] + lines, height, width)
    kept = _visible(candidates, masks, wanted, style.min_visibility)

    ids = regions.copy()
    for number, i in reversed(list(enumerate(kept, start=len(stuff) + 1))):
        ids[masks[i]] = number
    canvas = _background(rng, regions, stuff, base, style)
    for mask in masks[len(candidates) :]:
        canvas[mask] = rng.uniform(0.1, 0.9, 1) + rng.uniform(-0.08, 0.08, 3)
    image = _painted(rng, canvas, ids, base, len(kept), style)
    return _described(image, ids, stuff, [candidates[i] for i in kept], masks[kept])


# What there is


def _candidates(
    rng: np.random.Generator, height: int, width: int, style: SceneStyle
) -> tuple[list[_Candidate], int]:
    """Objects from front to back, and how many of them to keep."""
    if rng.random() < style.empty_fraction:
        return [], 0
    side = min(height, width)
    wanted = int(rng.integers(style.min_objects, style.max_objects + 1))
    count = wanted + _SPARE
    smallest, largest = style.min_size, max(style.max_size * side, style.min_size)
    size = smallest * (largest / smallest) ** (rng.random(count) ** 0.8)
    shape = rng.integers(0, len(style.shapes), count)
    ratio = rng.uniform(-1, 1, count)
    angle = rng.uniform(-style.rotation, style.rotation, count)
    x, y = rng.random(count), rng.random(count)
    found = []
    for i in range(count):
        outline, spread = outlines.SHAPES[style.shapes[shape[i]]]
        stretch = math.sqrt(spread) ** ratio[i]
        w, h = max(size[i] * stretch, smallest), max(size[i] / stretch, smallest)
        margin = 0.3 * size[i]  # at most a part of the shape lies outside
        center = margin + (width - 2 * margin) * x[i], margin + (height - 2 * margin) * y[i]
        box = np.array([*np.round(center, 2), round(w, 2), round(h, 2), _upright(angle[i])])
        found.append(_Candidate(int(shape[i]), [outlines.placed(outline, box)], box))
    if rng.random() < style.crowd_fraction:
        found.insert(int(rng.integers(0, 2)), _crowd(rng, height, width, style))
        wanted += 1
    return found, wanted


def _upright(angle: float) -> float:
    """The same box with an angle in [-90, 90), to a hundredth of a degree."""
    return round((angle + 90.0) % 180.0 - 90.0, 2) if not -90.0 <= angle < 90.0 else round(angle, 2)


def _crowd(rng: np.random.Generator, height: int, width: int, style: SceneStyle) -> _Candidate:
    """A clump of tiny shapes of one class."""
    count = int(rng.integers(_CROWD_SHAPES[0], _CROWD_SHAPES[1] + 1))
    shape = int(rng.integers(0, len(style.shapes)))
    outline, _ = outlines.SHAPES[style.shapes[shape]]
    pitch, columns = 7.5, math.ceil(math.sqrt(count * 1.6))
    cells = np.stack([np.arange(count) % columns, np.arange(count) // columns], axis=1) * pitch
    room = np.maximum(np.array([width, height]) - cells.max(axis=0) - 2 * pitch, 1.0)
    centers = cells + pitch + rng.random(2) * room + rng.uniform(-1, 1, (count, 2))
    sizes, angles = rng.uniform(5, 7, count), rng.uniform(-30, 30, count)
    polygons = [outlines.placed(outline, np.array([*c, s, s, a])) for c, s, a in zip(centers, sizes, angles)]
    points = np.concatenate(polygons)
    low, high = points.min(axis=0), points.max(axis=0)
    return _Candidate(shape, polygons, np.round([*(low + high) / 2, *(high - low), 0.0], 2), iscrowd=True)


def _distractors(
    rng: np.random.Generator, height: int, width: int, style: SceneStyle
) -> list[list[np.ndarray]]:
    """Thin lines across the background, as polygons."""
    count = int(rng.integers(0, style.max_distractors + 1))
    start, end = rng.random((2, count, 2)) * (width, height)
    result = []
    for a, b, thickness in zip(start, end, rng.uniform(1.2, 2.4, count)):
        along = (b - a) / max(float(np.hypot(*(b - a))), 1.0)
        across = np.array([-along[1], along[0]]) * thickness / 2
        result.append([np.concatenate([a + across, b + across, b - across, a - across])])
    return result


def _visible(
    candidates: list[_Candidate], masks: np.ndarray, wanted: int, min_visibility: float
) -> list[int]:
    """Which candidates to keep, front to back: enough of each must be seen."""
    kept: list[int] = []
    taken = np.zeros(masks.shape[1:], dtype=bool)
    for i, candidate in enumerate(candidates):
        if len(kept) == wanted:
            break
        seen = np.count_nonzero(masks[i] & ~taken)
        if seen >= max(min_visibility * candidate.area, 9):
            kept.append(i)
            taken |= masks[i]
    return kept


# How it looks


def _regions(
    rng: np.random.Generator, height: int, width: int, style: SceneStyle
) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """Split the picture into one or two backgrounds: ids from 1, textures, and colours ``(R, 3)`` in 0 ... 1."""
    textures = rng.permutation(len(TEXTURES)) if style.textures else np.zeros(2, dtype=np.int64)
    regions = np.ones((height, width), dtype=np.uint8)
    split, angle, offset = rng.random(3)
    count = 1
    if split < 0.5 and style.textures:
        x, y = np.arange(width) / width - 0.5, np.arange(height) / height - 0.5
        side = math.cos(angle * np.pi) * x + math.sin(angle * np.pi) * y[:, None]
        regions += (side > (offset - 0.5) * 0.5).astype(np.uint8)
        count = 2
    hue, saturation = rng.random(2), rng.uniform(0.05, 0.3, 2)
    dark = rng.random() < 0.5
    value = rng.uniform(0.15, 0.4, 2) if dark else rng.uniform(0.65, 0.9, 2)
    base = np.array([colorsys.hsv_to_rgb(*c) for c in zip(hue, saturation, value)])
    return regions, tuple(int(t) for t in textures[:count]), base[:count]


def _background(
    rng: np.random.Generator,
    regions: np.ndarray,
    stuff: tuple[int, ...],
    base: np.ndarray,
    style: SceneStyle,
) -> np.ndarray:
    """``(H, W, 3)`` float32 in 0 ... 1."""
    height, width = regions.shape
    light = rng.uniform(-0.12, 0.12, 2)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    shade = (1 + light[0] * x + light[1] * y).astype(np.float32)
    for number, texture in enumerate(stuff, start=1):
        pattern = _texture(rng, TEXTURES[texture], height, width)
        if pattern is not None:
            shade += pattern if len(stuff) == 1 else pattern * (regions == number)
    table = np.concatenate([np.zeros((1, 3)), base]).astype(np.float32)
    return table[regions] * shade[..., None]


def _texture(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray | None:
    """``(H, W)`` float32 relative brightness around 0."""
    angle, period, strength = rng.uniform(0, np.pi), rng.uniform(7, 16), rng.uniform(0.1, 0.16)
    if name == "smooth":
        return None
    if name == "grainy":
        noise = np.frombuffer(rng.bytes(((height + 1) // 2) * ((width + 1) // 2)), dtype=np.uint8)
        grain = noise.reshape((height + 1) // 2, (width + 1) // 2).astype(np.float32) / 255 - 0.5
        return (grain * (2.4 * strength)).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    x = np.arange(width, dtype=np.float32) * (math.cos(angle) / period)
    y = np.arange(height, dtype=np.float32)[:, None] * (math.sin(angle) / period)
    if name == "striped":
        return (np.floor(x + y) % 2 - 0.5).astype(np.float32) * strength
    across = np.floor(np.arange(width) / period)
    down = np.floor(np.arange(height) / period)[:, None]
    return ((across + down) % 2 - 0.5).astype(np.float32) * strength


def _painted(
    rng: np.random.Generator,
    canvas: np.ndarray,
    ids: np.ndarray,
    base: np.ndarray,
    count: int,
    style: SceneStyle,
) -> np.ndarray:
    first = len(base) + 1
    if count:
        table = np.zeros((first + count, 3), dtype=np.float32)
        table[first:] = _colors(rng, base, count, style.contrast)
        objects = ids >= first
        paint = table[ids]
        edge = np.zeros(ids.shape, dtype=bool)
        across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
        edge[:, 1:] |= across
        edge[:, :-1] |= across
        edge[1:] |= down
        edge[:-1] |= down
        paint[edge] *= 0.72
        np.copyto(canvas, paint, where=objects[..., None])
    canvas *= 255
    if style.noise > 0:
        noise = np.frombuffer(rng.bytes(canvas.size), dtype=np.uint8).reshape(canvas.shape)
        canvas += noise * np.float32(2 * style.noise / 255)
        canvas -= style.noise
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _colors(rng: np.random.Generator, base: np.ndarray, count: int, contrast: float) -> np.ndarray:
    """``(count, 3)`` vivid colours, each at least ``contrast`` from every background and unlike its neighbours."""
    hues = (rng.random() + np.arange(count) * 0.381966 + rng.uniform(-0.04, 0.04, count)) % 1.0
    saturation, value = rng.uniform(0.7, 1.0, count), rng.uniform(0.7, 1.0, count)
    colors = np.array([colorsys.hsv_to_rgb(*c) for c in zip(hues, saturation, value)])
    away = colors[:, None] - base  # (count, R, 3)
    distance = np.sqrt((away**2).sum(axis=2))
    for i in np.flatnonzero((distance < contrast).any(axis=1)):
        darker = colors[i] * 0.4
        if np.sqrt(((darker - base) ** 2).sum(axis=1)).min() > distance[i].min():
            colors[i] = darker
    return colors


# What is true of it


def _described(
    image: np.ndarray,
    ids: np.ndarray,
    stuff: tuple[int, ...],
    kept: list[_Candidate],
    whole: np.ndarray,
) -> Scene:
    height, width = ids.shape
    count, first = len(kept), len(stuff) + 1
    numbers = np.arange(first, first + count, dtype=np.uint8)
    visible = ids == numbers[:, None, None]  # (n, H, W)
    across, down = visible.any(axis=1), visible.any(axis=2)  # (n, W), (n, H)
    boxes = np.zeros((count, 4), dtype=np.float32)
    keypoints = np.zeros((count, len(outlines.KEYPOINTS), 3), dtype=np.float32)
    areas = visible.sum(axis=(1, 2))
    segments: list[Any] = []
    if count:
        boxes[:, 0], boxes[:, 1] = across.argmax(axis=1), down.argmax(axis=1)
        boxes[:, 2] = width - across[:, ::-1].argmax(axis=1)
        boxes[:, 3] = height - down[:, ::-1].argmax(axis=1)
        codes = coco_mask.encode(np.asfortranarray(visible.transpose(1, 2, 0).view(np.uint8)))
        full = whole.sum(axis=(1, 2))
        for i, candidate in enumerate(kept):
            points = np.concatenate(candidate.polygons)
            inside = (points >= 0).all() and (points <= (width, height)).all()
            alone = inside and areas[i] == full[i] and not candidate.iscrowd
            segments.append(
                [p.reshape(-1) for p in candidate.polygons]
                if alone
                else {"size": [height, width], "counts": codes[i]["counts"]}
            )
            if not candidate.iscrowd:
                keypoints[i] = _keypoints(candidate, ids, first + i)
    return Scene(
        image=image,
        ids=ids,
        stuff=stuff,
        classes=np.array([c.shape for c in kept], dtype=np.int64),
        iscrowd=np.array([c.iscrowd for c in kept], dtype=bool),
        boxes=boxes,
        rotated_boxes=np.array([c.box for c in kept], dtype=np.float32).reshape(count, 5),
        keypoints=keypoints,
        areas=areas,
        segments=segments,
    )


def _keypoints(candidate: _Candidate, ids: np.ndarray, number: int) -> np.ndarray:
    """``(K, 3)``: zeros outside the picture, visibility 1 where another object lies in front, 2 otherwise."""
    points = outlines.keypoints(candidate.polygons[0], candidate.box[:2])
    height, width = ids.shape
    column, row = np.floor(points).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    owner = ids[row.clip(0, height - 1), column.clip(0, width - 1)]
    seen = np.where(owner == number, 2.0, 1.0)
    return np.concatenate([np.round(points, 2), seen[:, None]], axis=1) * inside[:, None]
