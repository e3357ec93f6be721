"""Drawing of objects: boxes, masks, keypoints and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.structures import Boxes, Instances, RotatedBoxes
from hydet.visualization.canvas import Canvas, Point, as_rgb
from hydet.visualization.objects import DrawnObjects, objects_from_predictions
from hydet.visualization.overlays import blend_mask_, center_of
from hydet.visualization.palette import Color, palette, shade
from hydet.visualization.vocabulary import Vocabulary

__all__ = ["draw_instances", "draw_objects", "enlarge"]


def draw_instances(
    image: Tensor,
    instances: Instances,
    metadata: object = None,
    *,
    score_threshold: float = 0.5,
    keypoint_threshold: float = 0.05,
    max_instances: int = 100,
    alpha: float = 0.45,
    labels: bool = True,
    min_side: int = 320,
) -> Tensor:
    """Draw predicted objects: upright or rotated boxes, masks, keypoints with their skeleton, class names and scores.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        instances: any of ``pred_boxes``, ``pred_classes``, ``scores``, ``pred_masks``, ``pred_keypoints``, ``track_ids``,
            or ``proposal_boxes`` and ``objectness_logits``. If its ``image_size`` is not that of ``image``, everything
            is rescaled to the image.
        metadata: a ``hydet.data.Metadata``, or any object with some of ``thing_classes``, ``palette``,
            ``keypoint_names`` and ``keypoint_skeleton``; None shows class numbers.
        score_threshold: drop objects with a lower score; proposals are not filtered.
        keypoint_threshold: hide keypoints with a lower score.
        max_instances: draw at most this many of the remaining objects, those with the highest scores.
        alpha: opacity of masks, in [0, 1].
        labels: write class names and scores.
        min_side: enlarge an image whose longer side is shorter than this before drawing, so that its labels are
            readable; 0 keeps every size.

    Returns:
        uint8 ``(3, H, W)``; larger than ``image`` only because of ``min_side``.
    """
    image = enlarge(as_rgb(image), min_side)
    objects = objects_from_predictions(instances, (image.shape[1], image.shape[2]), keypoint_threshold)
    scores = objects.scores
    if scores is not None:
        order = scores.argsort(descending=True, stable=True)
        if instances.has("scores"):
            order = order[scores[order] >= score_threshold]
        objects = objects.select(order[:max_instances])
    elif objects.count > max_instances:
        objects = objects.select(torch.arange(max_instances))
    return draw_objects(image, objects, Vocabulary.from_metadata(metadata), alpha=alpha, labels=labels)


def draw_objects(
    image: Tensor, objects: DrawnObjects, vocabulary: Vocabulary, *, alpha: float, labels: bool
) -> Tensor:
    """Draw objects in the frame of an image.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        objects: if they have scores, the best comes first, and so do their labels.
        vocabulary: names, colors and skeleton.
        alpha: opacity of masks, in [0, 1].
        labels: write class names and scores.

    Returns:
        uint8 ``(3, H, W)``.
    """
    order = _back_to_front(objects)
    classes = [0] * objects.count if objects.classes is None else objects.classes.tolist()
    crowd = [False] * objects.count if objects.crowd is None else objects.crowd.tolist()
    colors = [shade(vocabulary.thing_color(int(c)), i) for i, c in enumerate(classes)]
    image = image.clone(memory_format=torch.contiguous_format)
    if objects.masks is not None:
        for i in order:
            blend_mask_(image, objects.masks[i], colors[i], alpha=alpha, hatched=crowd[i])
    canvas = Canvas(image)
    if objects.boxes is not None:
        boxes = objects.boxes.tolist()
        for i in order:
            _draw_box(canvas, boxes[i], colors[i], dashed=crowd[i])
    if objects.keypoints is not None and objects.keypoint_styles is not None:
        points, styles = objects.keypoints.tolist(), objects.keypoint_styles.tolist()
        for i in order:
            _draw_keypoints(canvas, points[i], styles[i], vocabulary.skeleton, colors[i])
    if labels:
        # The canvas drops a label that would hide earlier ones, so the important objects come first: the best ones, or
        # without scores the small ones in front.
        for i in reversed(order) if objects.scores is None else range(objects.count):
            anchor = _label_anchor(objects, i)
            if anchor is not None:
                canvas.label(_label_text(objects, i, vocabulary), anchor, colors[i])
    return canvas.finish()


def enlarge(image: Tensor, min_side: int) -> Tensor:
    """Enlarge a uint8 ``(3, H, W)`` image so that its longer side is at least ``min_side`` pixels."""
    height, width = image.shape[1:]
    factor = min_side / max(height, width)
    if factor <= 1:
        return image
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def _back_to_front(objects: DrawnObjects) -> list[int]:
    """Return the order in which large objects come first, so that they do not hide small ones."""
    if objects.boxes is None:
        return list(range(objects.count))
    boxes = (RotatedBoxes if objects.boxes.shape[1] == 5 else Boxes)(objects.boxes)
    order: list[int] = boxes.area().nan_to_num().argsort(descending=True, stable=True).tolist()
    return order


def _label_text(objects: DrawnObjects, i: int, vocabulary: Vocabulary) -> str:
    words = []
    if objects.track_ids is not None and int(objects.track_ids[i]) >= 0:
        words.append(f"{int(objects.track_ids[i])}:")
    if objects.classes is not None:
        words.append(vocabulary.thing_name(int(objects.classes[i])))
    if objects.scores is not None:
        words.append(f"{float(objects.scores[i]):.2f}")
    if objects.crowd is not None and bool(objects.crowd[i]):
        words.append("(crowd)")
    return " ".join(words)


def _label_anchor(objects: DrawnObjects, i: int) -> tuple[float, float, float, float] | None:
    """Return the box or point beside which to write a label; None if there is no finite one."""
    if objects.boxes is not None:
        box = objects.boxes[i].tolist()
        if not np.isfinite(box).all():
            return None
        if len(box) == 4:
            return (box[0], box[1], box[2], box[3])
        x, y = min(_corners(box), key=lambda corner: corner[1])  # the topmost corner
        return (x, y, x + 1, y + 1)
    if objects.masks is not None and objects.masks[i].any():
        x, y = center_of(objects.masks[i])
        return (x, y, x, y)
    return None


def _draw_box(canvas: Canvas, box: Sequence[float], color: Color, *, dashed: bool) -> None:
    if not np.isfinite(box).all():
        return
    if len(box) == 5:
        canvas.path(_corners(box), color, closed=True)
    else:
        canvas.box(box, color, dashed=dashed)


def _draw_keypoints(
    canvas: Canvas,
    points: Sequence[Sequence[float]],
    styles: Sequence[int],
    skeleton: Sequence[tuple[int, int]],
    color: Color,
) -> None:
    """Draw the skeleton of one object in its color, and on it each keypoint in a color of its own."""
    drawn = [style > 0 and bool(np.isfinite(point[:2]).all()) for style, point in zip(styles, points)]
    for a, b in skeleton:
        if max(a, b) < len(points) and drawn[a] and drawn[b]:
            canvas.path([(points[a][0], points[a][1]), (points[b][0], points[b][1])], color, width=1.4)
    for (x, y, _), is_drawn, style, keypoint_color in zip(points, drawn, styles, palette(len(points))):
        if is_drawn:
            canvas.point(x, y, keypoint_color, filled=style > 1)


def _corners(box: Sequence[float]) -> list[Point]:
    """Return the corners of a rotated box (cx, cy, w, h, degrees counterclockwise)."""
    cx, cy, w, h, angle = box
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    signs = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
    return [(float(cx + cos * i * w + sin * j * h), float(cy - sin * i * w + cos * j * h)) for i, j in signs]
