"""Predictions and ground truth drawn on their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.structures import Boxes, Instances, RotatedBoxes
from hydet.visualization.canvas import Canvas, as_rgb
from hydet.visualization.objects import (
    DrawnObjects,
    from_ground_truth,
    from_predictions,
    from_record,
    getter_of,
    resized_nearest,
)
from hydet.visualization.overlays import blend_map, blend_mask_, middle_of
from hydet.visualization.palette import Color, as_color, palette, shade

Layer = Literal["instances", "panoptic", "semantic"]
_LAYERS: tuple[Layer, ...] = ("instances", "panoptic", "semantic")


def draw_instances(
    image: Tensor,
    instances: Instances,
    metadata: Any = None,
    *,
    score_threshold: float = 0.5,
    keypoint_threshold: float = 0.05,
    max_instances: int = 100,
    alpha: float = 0.45,
    labels: bool = True,
    min_side: int = 320,
) -> Tensor:
    """Draw predicted objects: boxes (also rotated), masks, keypoints with their skeleton, class names and scores.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        instances: any of ``pred_boxes``, ``pred_classes``, ``scores``, ``pred_masks``, ``pred_keypoints``, or
            ``proposal_boxes`` and ``objectness_logits``. If its ``image_size`` is not that of ``image``, everything
            is rescaled to the image.
        metadata: a ``hydet.data.Metadata``, or any object with some of ``thing_classes``, ``palette``,
            ``keypoint_names`` and ``keypoint_skeleton``; None shows class numbers.
        score_threshold: objects with a lower score are left out; proposals are not filtered.
        keypoint_threshold: keypoints with a lower score are left out.
        max_instances: of the remaining objects, only this many with the highest scores.
        alpha: how strongly masks are tinted, in [0, 1].
        labels: whether to write class names and scores.
        min_side: a picture whose longer side is shorter than this is enlarged to it before anything is drawn, so
            that labels on small images can be read; 0 keeps every size.

    Returns:
        uint8 ``(3, H, W)``, larger than ``image`` only because of ``min_side``.
    """
    picture = _enlarged(as_rgb(image), min_side)
    objects = from_predictions(instances, picture.shape[1:], keypoint_threshold)
    scores = objects.scores
    if scores is not None:
        order = scores.argsort(descending=True, stable=True)
        if instances.has("scores"):
            order = order[scores[order] >= score_threshold]
        objects = objects.select(order[:max_instances])
    elif objects.count > max_instances:
        objects = objects.select(torch.arange(max_instances))
    return _draw_objects(picture, objects, metadata, alpha=alpha, labels=labels)


def draw_ground_truth(
    example: Any,
    metadata: Any = None,
    *,
    layers: Sequence[Layer] | None = None,
    rotated: bool = False,
    alpha: float = 0.45,
    labels: bool = True,
    min_side: int = 320,
) -> Tensor:
    """Draw what is annotated in an example: objects, crowd regions (hatched), and semantic or panoptic labels.

    Args:
        example: a ``hydet.data.Record``, or a model input: a dict with ``image`` and some of ``instances`` and
            ``sem_seg``. Its image is uint8 RGB.
        metadata: see :func:`draw_instances`; ``stuff_classes`` names semantic labels. None takes that of a record.
        layers: of "instances", "panoptic" and "semantic", what to draw; None draws the first that the
            example has.
        rotated: draw the rotated boxes of a record that has both kinds.
        alpha: how strongly regions are tinted, in [0, 1].
        labels: whether to write class names.
        min_side: see :func:`draw_instances`.

    Returns:
        uint8 ``(3, H, W)``.
    """
    get = getter_of(example)
    if get("image") is None:
        raise ValueError(
            f"draw_ground_truth takes a record or a model input with an image, got {type(example).__name__}"
        )
    picture = _enlarged(as_rgb(get("image")), min_side)
    metadata = metadata if metadata is not None else get("metadata")
    instances, panoptic = get("instances"), get("panoptic_seg")
    segments: Any
    if isinstance(panoptic, tuple):
        panoptic, segments = panoptic
    else:
        segments = get("segments_info")
    there = {
        "instances": instances is not None or get("boxes") is not None,
        "panoptic": panoptic is not None and segments is not None,
        "semantic": get("sem_seg") is not None,
    }
    for layer in _chosen(layers, there):
        if layer == "panoptic":
            picture = draw_panoptic(picture, panoptic, segments, metadata, alpha=alpha, labels=labels)
        elif layer == "semantic":
            picture = draw_semantic(picture, get("sem_seg"), metadata, alpha=alpha, labels=labels)
        else:
            size = (picture.shape[1], picture.shape[2])
            objects = (
                from_ground_truth(instances, size)
                if instances is not None
                else from_record(example, size, rotated=rotated)
            )
            picture = _draw_objects(picture, objects, metadata, alpha=alpha, labels=labels)
    return picture


def draw_predictions(
    image: Tensor,
    output: Mapping[str, Any],
    metadata: Any = None,
    *,
    layers: Sequence[Layer] | None = None,
    score_threshold: float = 0.5,
    keypoint_threshold: float = 0.05,
    max_instances: int = 100,
    alpha: float = 0.45,
    labels: bool = True,
    min_side: int = 320,
) -> Tensor:
    """Draw a model's result for one image, whatever it holds.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        output: some of ``instances``, ``proposals``, ``panoptic_seg`` and ``sem_seg``, as meta-architectures
            return them.
        layers: see :func:`draw_ground_truth`.

    The other arguments are those of :func:`draw_instances`.

    Returns:
        uint8 ``(3, H, W)``.
    """
    picture = _enlarged(as_rgb(image), min_side)
    instances: Any = output.get("instances", output.get("proposals"))
    there = {
        "instances": instances is not None,
        "panoptic": output.get("panoptic_seg") is not None,
        "semantic": output.get("sem_seg") is not None,
    }
    if layers is None and there["panoptic"]:
        layers = ("panoptic",)
    for layer in _chosen(layers, there):
        if layer == "panoptic":
            regions, segments = output["panoptic_seg"]
            picture = draw_panoptic(picture, regions, segments, metadata, alpha=alpha, labels=labels)
        elif layer == "semantic":
            picture = draw_semantic(picture, output["sem_seg"], metadata, alpha=alpha, labels=labels)
        else:
            picture = draw_instances(
                picture,
                instances,
                metadata,
                score_threshold=score_threshold,
                keypoint_threshold=keypoint_threshold,
                max_instances=max_instances,
                alpha=alpha,
                labels=labels,
                min_side=0,
            )
    return picture


def draw_semantic(
    image: Tensor, sem_seg: Tensor, metadata: Any = None, *, alpha: float = 0.45, labels: bool = True
) -> Tensor:
    """Tint an image by semantic class.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        sem_seg: ``(H, W)`` class indices, where 255 and negative numbers are unlabelled, or ``(C, H, W)`` logits.
        metadata: ``stuff_classes`` names the classes.
        alpha: how strongly, in [0, 1].
        labels: whether to write the class names.

    Returns:
        uint8 ``(3, H, W)``.
    """
    picture = as_rgb(image)
    regions = torch.as_tensor(sem_seg).detach().cpu()
    if regions.ndim == 3:
        regions = regions.argmax(dim=0)
    regions = resized_nearest(regions.long(), picture.shape[1:])
    regions = torch.where(regions == 255, -1, regions)
    found = [c for c in regions.unique().tolist() if c >= 0]
    names = _names(metadata, "stuff_classes")
    colors = palette(max([len(names), *(c + 1 for c in found)]), muted=False)
    picture = blend_map(picture, regions, colors, alpha=alpha)
    if not labels:
        return picture
    parts = [(regions == c, _name(names, c), colors[c]) for c in found]
    return _label_regions(picture, parts)


def draw_panoptic(
    image: Tensor,
    panoptic_seg: Tensor,
    segments_info: Sequence[Mapping[str, Any]],
    metadata: Any = None,
    *,
    alpha: float = 0.45,
    labels: bool = True,
) -> Tensor:
    """Tint an image by panoptic segment: vivid things, each in its own shade, over muted stuff.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        panoptic_seg: ``(H, W)`` segment ids.
        segments_info: per segment ``id``, ``category_id`` and ``isthing``, optionally ``score`` and ``iscrowd``.
        metadata: ``thing_classes`` and ``stuff_classes`` name the categories.
        alpha: how strongly, in [0, 1].
        labels: whether to write the class names.

    Returns:
        uint8 ``(3, H, W)``.
    """
    picture = as_rgb(image)
    ids = resized_nearest(torch.as_tensor(panoptic_seg).detach().cpu().long(), picture.shape[1:])
    things, stuff = _names(metadata, "thing_classes"), _names(metadata, "stuff_classes")
    regions = torch.full_like(ids, -1)
    colors: list[Color] = []
    parts = []
    for segment in segments_info:
        mask = ids == int(segment["id"])
        if not mask.any():
            continue
        category, is_thing = int(segment["category_id"]), bool(segment.get("isthing", True))
        if is_thing:
            color = shade(_thing_color(metadata, category), len(colors))
        else:
            color = palette(category + 1, muted=True)[category]
        text = _name(things if is_thing else stuff, category)
        if segment.get("score") is not None:
            text += f" {float(segment['score']):.2f}"
        if segment.get("iscrowd"):
            text += " (crowd)"
        regions[mask] = len(colors)
        colors.append(color)
        parts.append((mask, text, color))
    picture = blend_map(picture, regions, colors, alpha=alpha)
    return _label_regions(picture, parts) if labels else picture


# Drawing it


def _draw_objects(
    picture: Tensor, objects: DrawnObjects, metadata: Any, *, alpha: float, labels: bool
) -> Tensor:
    order = _back_to_front(objects)
    crowd = objects.crowd.tolist() if objects.crowd is not None else [False] * objects.count
    classes: list[Any] = objects.classes.tolist() if objects.classes is not None else [None] * objects.count
    colors = [shade(_thing_color(metadata, 0 if c is None else int(c)), i) for i, c in enumerate(classes)]
    picture = picture.clone(memory_format=torch.contiguous_format)
    if objects.masks is not None:
        for i in order:
            blend_mask_(picture, objects.masks[i], colors[i], alpha=alpha, hatched=crowd[i])
    canvas = Canvas(picture)
    boxes = objects.boxes.tolist() if objects.boxes is not None else None
    for i in order:
        if boxes is not None and np.isfinite(boxes[i]).all():
            if len(boxes[i]) == 5:
                canvas.path(_corners(boxes[i]), colors[i], closed=True)
            else:
                canvas.box(boxes[i], colors[i], dashed=crowd[i])
    if objects.keypoints is not None and objects.shown is not None:
        bones = _skeleton(metadata)
        for i in order:
            _draw_keypoints(
                canvas, objects.keypoints[i].tolist(), objects.shown[i].tolist(), bones, colors[i]
            )
    if labels:
        names = _names(metadata, "thing_classes")
        first = (
            reversed(order) if objects.scores is None else range(objects.count)
        )  # those are sorted by score
        for i in first:
            text = "" if classes[i] is None else _name(names, int(classes[i]))
            if objects.scores is not None:
                text += f" {float(objects.scores[i]):.2f}"
            if crowd[i]:
                text += " (crowd)"
            place = _place_of_label(objects, i)
            if place is not None:
                canvas.label(text.strip(), place, colors[i])
    return canvas.finish()


def _back_to_front(objects: DrawnObjects) -> list[int]:
    """Large objects first, so that they do not hide small ones."""
    if objects.boxes is None:
        return list(range(objects.count))
    boxes = (RotatedBoxes if objects.boxes.shape[1] == 5 else Boxes)(objects.boxes)
    return boxes.area().nan_to_num().argsort(descending=True, stable=True).tolist()


def _place_of_label(objects: DrawnObjects, i: int) -> Sequence[float] | None:
    if objects.boxes is not None:
        box = objects.boxes[i].tolist()
        if not np.isfinite(box).all():
            return None
        if len(box) == 4:
            return box
        x, y = min(_corners(box), key=lambda corner: corner[1])  # at the topmost corner
        return (x, y, x + 1, y + 1)
    if objects.masks is not None and objects.masks[i].any():
        return middle_of(objects.masks[i]) * 2
    return None


def _draw_keypoints(
    canvas: Canvas, points: list[list[float]], shown: list[int], bones: list[tuple[int, int]], color: Color
) -> None:
    there = [bool(s) and bool(np.isfinite(p[:2]).all()) for s, p in zip(shown, points)]
    for a, b in bones:
        if max(a, b) < len(points) and there[a] and there[b]:
            canvas.path([(points[a][0], points[a][1]), (points[b][0], points[b][1])], color, width=1.4)
    colors = palette(len(points))
    for (x, y, _), here, how, own in zip(points, there, shown, colors):
        if here:
            canvas.point(x, y, own, filled=how > 1)


def _corners(box: Sequence[float]) -> list[tuple[float, float]]:
    cx, cy, w, h, angle = box
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    signs = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
    return [(float(cx + c * i * w + s * j * h), float(cy - s * i * w + c * j * h)) for i, j in signs]


def _label_regions(picture: Tensor, parts: Sequence[tuple[Tensor, str, Color]]) -> Tensor:
    canvas = Canvas(picture)
    for mask, text, color in sorted(parts, key=lambda part: int(part[0].sum()), reverse=True):
        canvas.label(text, middle_of(mask) * 2, color)
    return canvas.finish()


def _enlarged(picture: Tensor, min_side: int) -> Tensor:
    height, width = picture.shape[1:]
    factor = min_side / max(height, width)
    if factor <= 1:
        return picture
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(picture[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


# Metadata


def _names(metadata: Any, field: str) -> Sequence[str]:
    return getattr(metadata, field, None) or ()


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"#{index}"


def _thing_color(metadata: Any, index: int) -> Color:
    own = getattr(metadata, "palette", None) or ()
    return as_color(own[index]) if 0 <= index < len(own) else palette(max(index, 0) + 1)[-1]


def _skeleton(metadata: Any) -> list[tuple[int, int]]:
    """Pairs of keypoint indices, from pairs of names or of indices."""
    names = list(_names(metadata, "keypoint_names"))
    pairs = getattr(metadata, "keypoint_skeleton", None) or ()
    return [tuple(names.index(k) if isinstance(k, str) else int(k) for k in pair[:2]) for pair in pairs]  # type: ignore[misc]


def _chosen(layers: Sequence[Layer] | None, there: Mapping[str, bool]) -> list[Layer]:
    """The layers to draw, regions before objects."""
    if layers is None:
        return [layer for layer in _LAYERS if there[layer]][:1]
    wanted: Sequence[str] = (layers,) if isinstance(layers, str) else layers
    for layer in wanted:
        if layer not in _LAYERS:
            raise ValueError(f"a layer is one of {list(_LAYERS)}, got {layer!r}")
        if not there[layer]:
            raise ValueError(f"there is nothing to draw for layer {layer!r}")
    return [layer for layer in reversed(_LAYERS) if layer in wanted]
