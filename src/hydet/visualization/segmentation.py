"""Drawing of semantic and panoptic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hydet.structures import SegmentInfo, SemanticScores, resize_nearest
from hydet.visualization.canvas import Canvas, Point, as_rgb
from hydet.visualization.overlays import blend_map, center_of
from hydet.visualization.palette import Color, palette, shade
from hydet.visualization.vocabulary import Vocabulary

__all__ = ["draw_panoptic", "draw_semantic"]


class _Region(NamedTuple):
    """A region of an image and its label."""

    area: int  # number of pixels
    center: Point  # a point far inside
    text: str
    color: Color


def draw_semantic(
    image: Tensor,
    sem_seg: Tensor | SemanticScores,
    metadata: object = None,
    *,
    alpha: float = 0.45,
    labels: bool = True,
) -> Tensor:
    """Tint an image by semantic class.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        sem_seg: ``(H, W)`` class indices, where 255 and negative numbers are unlabeled, or ``(C, H, W)`` logits or ``SemanticScores``.
        metadata: its ``stuff_classes`` name the classes; see :func:`draw_instances`.
        alpha: opacity of the tint, in [0, 1].
        labels: write class names.

    Returns:
        uint8 ``(3, H, W)``.
    """
    image = as_rgb(image)
    vocabulary = Vocabulary.from_metadata(metadata)
    label_map = sem_seg.labels() if isinstance(sem_seg, SemanticScores) else torch.as_tensor(sem_seg)
    label_map = label_map.detach().cpu()
    if label_map.ndim == 3:
        label_map = label_map.argmax(dim=0)
    label_map = resize_nearest(label_map.long(), image.shape[1:])  # (H, W)
    label_map = torch.where(label_map == 255, -1, label_map)
    classes = [c for c in label_map.unique().tolist() if c >= 0]
    colors = palette(max([len(vocabulary.stuff_classes), *(c + 1 for c in classes)]), muted=False)
    image = blend_map(image, label_map, colors, alpha=alpha)
    if not labels:
        return image
    return _write_labels(
        image, [_region(label_map == c, vocabulary.stuff_name(c), colors[c]) for c in classes]
    )


def draw_panoptic(
    image: Tensor,
    panoptic_seg: Tensor,
    segments_info: Sequence[SegmentInfo],
    metadata: object = None,
    *,
    alpha: float = 0.45,
    labels: bool = True,
) -> Tensor:
    """Tint an image by panoptic segment: vivid things, each in a shade of its own, and muted stuff.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        panoptic_seg: ``(H, W)`` segment ids.
        segments_info: per segment ``id``, ``category_id`` and ``isthing``, optionally ``score`` and ``iscrowd``.
        metadata: its ``thing_classes`` and ``stuff_classes`` name the categories; see :func:`draw_instances`.
        alpha: opacity of the tint, in [0, 1].
        labels: write class names.

    Returns:
        uint8 ``(3, H, W)``.
    """
    image = as_rgb(image)
    vocabulary = Vocabulary.from_metadata(metadata)
    ids = resize_nearest(torch.as_tensor(panoptic_seg).detach().cpu().long(), image.shape[1:])  # (H, W)
    region_map = torch.full_like(ids, -1)  # index into `regions`
    regions: list[_Region] = []
    for segment in segments_info:
        mask = ids == int(segment["id"])
        if not mask.any():
            continue
        category = int(segment["category_id"])
        if segment.get("isthing", True):
            color = shade(vocabulary.thing_color(category), len(regions))
            text = vocabulary.thing_name(category)
        else:
            color = palette(category + 1, muted=True)[category]
            text = vocabulary.stuff_name(category)
        if segment.get("score") is not None:
            text += f" {float(segment['score']):.2f}"
        if segment.get("iscrowd"):
            text += " (crowd)"
        region_map[mask] = len(regions)
        regions.append(_region(mask, text, color))
    image = blend_map(image, region_map, [region.color for region in regions], alpha=alpha)
    return _write_labels(image, regions) if labels else image


def _region(mask: Tensor, text: str, color: Color) -> _Region:
    """Return the region of an ``(H, W)`` bool mask, which is not stored: a photo can have a hundred of them."""
    return _Region(int(mask.sum()), center_of(mask), text, color)


def _write_labels(image: Tensor, regions: Sequence[_Region]) -> Tensor:
    """Write the label of each region inside it; large regions come first, as the canvas drops labels without space."""
    canvas = Canvas(image)
    for region in sorted(regions, key=lambda region: region.area, reverse=True):
        x, y = region.center
        canvas.label(region.text, (x, y, x, y), region.color)
    return canvas.finish()
