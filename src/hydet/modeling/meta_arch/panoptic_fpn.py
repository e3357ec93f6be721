"""Panoptic segmentation: instances and stuff merged into one map of segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.joining import build_sem_seg_head
from hydet.modeling.postprocessing import sem_seg_postprocess
from hydet.structures import ImageList, Instances

from .generalized_rcnn import GeneralizedRCNN, output_size
from .meta_architecture import ModelInput
from .semantic_segmentor import padded_label_maps

__all__ = ["PanopticFPN", "combine_semantic_and_instance_outputs"]


class PanopticFPN(GeneralizedRCNN):
    """Mask R-CNN with a semantic branch on the same pyramid.

    Args:
        sem_seg_head: such as ``SemSegFPNHead``; its class 0 stands for all things.
        combine_overlap_thresh: an instance is dropped if more than this fraction of it is taken already.
        combine_stuff_area_thresh: stuff segments of fewer pixels are dropped.
        combine_instances_score_thresh: instances below this score are dropped.
        **kwargs: those of ``GeneralizedRCNN``.

    ``inference`` gives, for each image, ``instances``, ``sem_seg`` and ``panoptic_seg``: the pair described at
    ``combine_semantic_and_instance_outputs``.

    Source: Kirillov et al. 2019 (arXiv:1901.02446).
    """

    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sem_seg_head = build_sem_seg_head(sem_seg_head, self.backbone.output_shape())
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("panoptic", *super().tasks, "semantic")

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        _, losses = self.sem_seg_head(features, padded_label_maps(self, batched_inputs, images))
        return losses | self._losses(batched_inputs, images, features)[0]

    def inference(  # type: ignore[override]
        self, batched_inputs: Sequence[ModelInput], do_postprocess: bool = True
    ) -> Any:
        """Detect, segment and combine.

        Returns:
            One ``dict`` an image; without post-processing ``(list[Instances], (B, K, H, W) logits)`` in the frame
            of the padded input.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        logits, _ = self.sem_seg_head(features)
        proposals = self.get_proposals(batched_inputs, images, features)
        detections, _ = self.roi_heads(images, features, proposals)
        if not do_postprocess:
            return detections, logits
        return self._combined(detections, logits, batched_inputs, images)

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        _, losses = self.sem_seg_head(features, padded_label_maps(self, batched_inputs, images))
        detection_losses, proposals = self._losses(batched_inputs, images, features)
        with torch.no_grad():
            logits, _ = self.sem_seg_head(features)
            detections, _ = self.roi_heads(images, features, proposals)
            return losses | detection_losses, self._combined(detections, logits, batched_inputs, images)

    def _combined(
        self,
        detections: Sequence[Instances],
        logits: Tensor,
        batched_inputs: Sequence[ModelInput],
        images: ImageList,
    ) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        final = self._postprocess(detections, batched_inputs, images.image_sizes)
        for found, scores, entry, size in zip(final, logits, batched_inputs, images.image_sizes, strict=True):
            sem_seg = sem_seg_postprocess(scores, size, *output_size(entry, size))
            panoptic_seg = combine_semantic_and_instance_outputs(
                found["instances"],
                sem_seg.argmax(dim=0),
                self.combine_overlap_thresh,
                self.combine_stuff_area_thresh,
                self.combine_instances_score_thresh,
            )
            results.append({"sem_seg": sem_seg, **found, "panoptic_seg": panoptic_seg})
        return results


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Give every pixel to at most one segment: instances first, by descending score, then stuff.

    Args:
        instance_results: with ``pred_masks`` (N, H, W) bool, ``scores`` and ``pred_classes``.
        semantic_results: ``(H, W)`` labels; 0 stands for things and makes no segment.
        overlap_threshold: an instance is skipped if more than this fraction of it is taken already.
        stuff_area_thresh: stuff needs at least this many free pixels.
        instances_score_thresh: instances below are skipped.

    Returns:
        ``(H, W)`` int32 segment ids, 0 where there is none, and a list with ``id`` (from 1), ``isthing``,
        ``category_id`` and, for things, ``score`` and ``instance_id`` (the row of ``instance_results``), for stuff
        ``area``.

    Source: Kirillov et al. 2019 (arXiv:1801.00868), section 5 and the appendix on heuristics.
    """
    segmentation = torch.zeros_like(semantic_results, dtype=torch.int32)
    segments: list[dict[str, Any]] = []
    scores = instance_results.scores.tolist()
    classes = instance_results.pred_classes.tolist()
    masks = instance_results.pred_masks.to(torch.bool)
    areas = masks.flatten(1).sum(dim=1).tolist()
    for i in instance_results.scores.argsort(descending=True, stable=True).tolist():
        if scores[i] < instances_score_thresh:
            break
        if areas[i] == 0:
            continue
        free = masks[i] & (segmentation == 0)
        taken = areas[i] - int(free.sum())
        if taken / areas[i] > overlap_threshold:
            continue
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": scores[i],
                "category_id": classes[i],
                "instance_id": i,
            }
        )
        segmentation[free] = len(segments)
    unclaimed = segmentation == 0
    for label in semantic_results.unique().tolist():
        stuff = (semantic_results == label) & unclaimed
        area = int(stuff.sum())
        if label == 0 or area < stuff_area_thresh:
            continue
        segments.append({"id": len(segments) + 1, "isthing": False, "category_id": label, "area": area})
        segmentation[stuff] = len(segments)
    return segmentation, segments
