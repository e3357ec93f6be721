"""Drawing of everything that an example or a model's output holds, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from hydet.structures import ModelOutput
from hydet.visualization.annotations import Annotations
from hydet.visualization.canvas import as_rgb
from hydet.visualization.instances import draw_instances, draw_objects, enlarge
from hydet.visualization.segmentation import draw_panoptic, draw_semantic
from hydet.visualization.vocabulary import Vocabulary

__all__ = ["Layer", "draw_ground_truth", "draw_predictions"]

Layer = Literal["instances", "panoptic", "semantic"]
_LAYERS: tuple[Layer, ...] = ("instances", "panoptic", "semantic")


def draw_ground_truth(
    example: object,
    metadata: object = None,
    *,
    layers: Sequence[Layer] | None = None,
    rotated: bool = False,
    alpha: float = 0.45,
    labels: bool = True,
    min_side: int = 320,
) -> Tensor:
    """Draw the annotations of an example: objects, crowd regions (hatched), and semantic or panoptic labels.

    Args:
        example: a ``hydet.data.Record``, or a model input: a dict with ``image`` and some of ``instances`` and
            ``sem_seg``. Its image is uint8 RGB.
        metadata: see :func:`draw_instances`; its ``stuff_classes`` name semantic labels. None takes the metadata of a
            record.
        layers: "instances", "panoptic" and "semantic" to draw; None draws the first of them that the example has.
        rotated: draw the rotated boxes of a record that has both kinds.
        alpha: opacity of regions, in [0, 1].
        labels: write class names.
        min_side: see :func:`draw_instances`.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        ValueError: if the example has no image, or lacks a layer.
    """
    annotations = Annotations.from_example(example, rotated=rotated)
    image = enlarge(as_rgb(annotations.image), min_side)
    metadata = annotations.metadata if metadata is None else metadata
    panoptic_seg, segments_info = annotations.panoptic_seg, annotations.segments_info
    available = {
        "instances": annotations.instances is not None,
        "panoptic": panoptic_seg is not None and segments_info is not None,
        "semantic": annotations.sem_seg is not None,
    }
    for layer in _choose_layers(layers, available):
        if layer == "panoptic" and panoptic_seg is not None and segments_info is not None:
            image = draw_panoptic(image, panoptic_seg, segments_info, metadata, alpha=alpha, labels=labels)
        elif layer == "semantic" and annotations.sem_seg is not None:
            image = draw_semantic(image, annotations.sem_seg, metadata, alpha=alpha, labels=labels)
        else:
            objects = annotations.objects((image.shape[1], image.shape[2]))
            vocabulary = Vocabulary.from_metadata(metadata)
            image = draw_objects(image, objects, vocabulary, alpha=alpha, labels=labels)
    return image


def draw_predictions(
    image: Tensor,
    output: ModelOutput,
    metadata: object = None,
    *,
    layers: Sequence[Layer] | None = None,
    score_threshold: float = 0.5,
    keypoint_threshold: float = 0.05,
    max_instances: int = 100,
    alpha: float = 0.45,
    labels: bool = True,
    min_side: int = 320,
) -> Tensor:
    """Draw a model's output for one image.

    Args:
        image: uint8 ``(3, H, W)`` RGB; not changed.
        output: some of ``instances``, ``proposals``, ``panoptic_seg`` and ``sem_seg``.
        metadata: see :func:`draw_instances`; its ``stuff_classes`` name semantic labels.
        layers: "instances", "panoptic" and "semantic" to draw; None draws the panoptic segmentation, or else the first
            of the others that the output has.
        score_threshold: drop objects with a lower score; proposals are not filtered.
        keypoint_threshold: hide keypoints with a lower score.
        max_instances: draw at most this many objects, those with the highest scores.
        alpha: opacity of regions, in [0, 1].
        labels: write class names and scores.
        min_side: see :func:`draw_instances`.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        ValueError: if the output lacks a layer.
    """
    image = enlarge(as_rgb(image), min_side)
    instances = output.get("instances", output.get("proposals"))
    available = {
        "instances": instances is not None,
        "panoptic": output.get("panoptic_seg") is not None,
        "semantic": output.get("sem_seg") is not None,
    }
    if layers is None and available["panoptic"]:
        layers = ("panoptic",)
    for layer in _choose_layers(layers, available):
        if layer == "panoptic":
            panoptic_seg, segments_info = output["panoptic_seg"]
            image = draw_panoptic(image, panoptic_seg, segments_info, metadata, alpha=alpha, labels=labels)
        elif layer == "semantic":
            image = draw_semantic(image, output["sem_seg"], metadata, alpha=alpha, labels=labels)
        elif instances is not None:
            image = draw_instances(
                image,
                instances,
                metadata,
                score_threshold=score_threshold,
                keypoint_threshold=keypoint_threshold,
                max_instances=max_instances,
                alpha=alpha,
                labels=labels,
                min_side=0,  # enlarged above
            )
    return image


def _choose_layers(layers: Sequence[Layer] | None, available: Mapping[str, bool]) -> list[Layer]:
    """Return the layers to draw, regions before objects.

    Raises:
        ValueError: if a layer is unknown or not available.
    """
    if layers is None:
        return [layer for layer in _LAYERS if available[layer]][:1]
    chosen: Sequence[str] = (layers,) if isinstance(layers, str) else layers
    for layer in chosen:
        if layer not in _LAYERS:
            raise ValueError(f"a layer must be one of {list(_LAYERS)}, got {layer!r}")
        if not available[layer]:
            raise ValueError(f"there is nothing to draw for layer {layer!r}")
    return [layer for layer in reversed(_LAYERS) if layer in chosen]
