"""Generated scenes: a textured background, shapes that occlude one another, and exact annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.polygons import rasterize_polygons
from hydet.data.annotations.rle import RunLengthCode
from hydet.data.datasets.record import Segment
from hydet.data.shapes import outlines
from hydet.data.shapes.objects import ShapeInstance, draw_distractors, draw_objects, select_visible
from hydet.data.shapes.painting import draw_background, paint_background, paint_objects
from hydet.data.shapes.scene_style import SceneStyle

__all__ = ["Scene", "draw_scene"]


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image with N objects, from front to back.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        ids: ``(H, W)`` uint8 region of each pixel: 1 ... R for the background regions, the next N for the objects.
        textures: index in ``TEXTURES`` of each background region.
        classes: ``(N,)`` int64.
        iscrowd: ``(N,)`` bool.
        boxes: ``(N, 4)`` float32 xyxy of the visible parts.
        rotated_boxes: ``(N, 5)`` float32 of the whole shapes, including hidden parts.
        keypoints: ``(N, 5, 3)`` float32 as (x, y, visibility).
        areas: ``(N,)`` int64 visible pixels.
        segments: polygons or run-length codes of the visible parts.
    """

    image: np.ndarray
    ids: np.ndarray
    textures: tuple[int, ...]
    classes: np.ndarray
    iscrowd: np.ndarray
    boxes: np.ndarray
    rotated_boxes: np.ndarray
    keypoints: np.ndarray
    areas: np.ndarray
    segments: list[Segment]


def draw_scene(rng: np.random.Generator, height: int, width: int, style: SceneStyle) -> Scene:
    """Draw an image and its annotations.

    Args:
        rng: the only source of randomness. The images of a seed depend on the order of its calls, so do not change it.
        height: image height in pixels.
        width: image width in pixels.
        style: appearance and difficulty.
    """
    background = draw_background(rng, height, width, style)
    candidates = draw_objects(rng, height, width, style)
    lines = draw_distractors(rng, height, width, style)
    polygons = [[p.reshape(-1) for p in candidate.polygons] for candidate in candidates.instances]
    masks = rasterize_polygons(polygons + lines, height, width)
    object_masks, line_masks = masks[: len(polygons)], masks[len(polygons) :]
    selected = select_visible(candidates, object_masks, style.min_visibility)

    ids = background.regions.copy()
    first_id = len(background.textures) + 1
    for object_id, i in reversed(list(enumerate(selected, start=first_id))):  # from back to front
        ids[object_masks[i]] = object_id
    canvas = paint_background(rng, background)
    for mask in line_masks:
        canvas[mask] = rng.uniform(0.1, 0.9, 1) + rng.uniform(-0.08, 0.08, 3)
    image = paint_objects(rng, canvas, ids, background.colors, len(selected), style)
    objects = [candidates.instances[i] for i in selected]
    return _annotate(image, ids, background.textures, objects, object_masks[selected])


def _annotate(
    image: np.ndarray,
    ids: np.ndarray,
    textures: tuple[int, ...],
    objects: Sequence[ShapeInstance],
    whole_masks: np.ndarray,
) -> Scene:
    """Derive the annotations from the regions; ``whole_masks`` (N, H, W) include hidden parts."""
    count, first_id = len(objects), len(textures) + 1
    object_ids = np.arange(first_id, first_id + count, dtype=np.uint8)
    visible_masks = ids == object_ids[:, None, None]  # (N, H, W)
    keypoints = np.zeros((count, len(outlines.KEYPOINTS), 3), dtype=np.float32)
    for i, instance in enumerate(objects):
        if not instance.iscrowd:
            keypoints[i] = _keypoints(instance, ids, first_id + i)
    return Scene(
        image=image,
        ids=ids,
        textures=textures,
        classes=np.array([o.class_index for o in objects], dtype=np.int64),
        iscrowd=np.array([o.iscrowd for o in objects], dtype=bool),
        boxes=_boxes_around(visible_masks),
        rotated_boxes=np.array([o.rotated_box for o in objects], dtype=np.float32).reshape(count, 5),
        keypoints=keypoints,
        areas=visible_masks.sum(axis=(1, 2)),
        segments=_segments(objects, visible_masks, whole_masks),
    )


def _boxes_around(masks: np.ndarray) -> np.ndarray:
    """Return ``(N, 4)`` float32 xyxy boxes around ``(N, H, W)`` masks, none of them empty."""
    count, height, width = masks.shape
    boxes = np.zeros((count, 4), dtype=np.float32)
    if count:
        columns, rows = np.asarray(masks.any(axis=1)), np.asarray(masks.any(axis=2))  # (N, W), (N, H)
        boxes[:, 0], boxes[:, 1] = columns.argmax(axis=1), rows.argmax(axis=1)
        boxes[:, 2] = width - columns[:, ::-1].argmax(axis=1)
        boxes[:, 3] = height - rows[:, ::-1].argmax(axis=1)
    return boxes


def _segments(
    objects: Sequence[ShapeInstance], visible_masks: np.ndarray, whole_masks: np.ndarray
) -> list[Segment]:
    """Return the outlines of objects that are completely visible, and run-length codes of the others."""
    if not objects:
        return []
    _, height, width = visible_masks.shape
    codes = coco_mask.encode(np.asfortranarray(visible_masks.transpose(1, 2, 0).view(np.uint8)))
    is_unoccluded = visible_masks.sum(axis=(1, 2)) == whole_masks.sum(axis=(1, 2))  # (N,)
    segments: list[Segment] = []
    for i, instance in enumerate(objects):
        points = np.concatenate(instance.polygons)
        is_inside = (points >= 0).all() and (points <= (width, height)).all()
        if is_inside and is_unoccluded[i] and not instance.iscrowd:
            segments.append([polygon.reshape(-1) for polygon in instance.polygons])
        else:
            segments.append(RunLengthCode(size=[height, width], counts=codes[i]["counts"]))
    return segments


def _keypoints(instance: ShapeInstance, ids: np.ndarray, object_id: int) -> np.ndarray:
    """Return ``(K, 3)``: zeros outside the image, visibility 1 behind another object, and 2 otherwise."""
    points = outlines.find_keypoints(instance.polygons[0], instance.rotated_box[:2])
    height, width = ids.shape
    column, row = np.floor(points).astype(np.int64).T
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    front_id = ids[row.clip(0, height - 1), column.clip(0, width - 1)]
    visibility = np.where(front_id == object_id, 2.0, 1.0)
    return np.asarray(np.concatenate([np.round(points, 2), visibility[:, None]], axis=1) * is_inside[:, None])
