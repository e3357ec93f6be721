"""Panoptic segmentation: instances and stuff merged into one map of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor

from hydet.modeling.joining import build_sem_seg_head
from hydet.modeling.padded import PaddedResults, results_to_instances
from hydet.modeling.postprocessing import sem_seg_postprocess
from hydet.modeling.protocols import SemanticHead, Task
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import (
    ImageList,
    Instances,
    Losses,
    ModelInput,
    ModelOutput,
    ROIMasks,
    SegmentInfo,
    SemanticScores,
    semantic_labels,
)

from .generalized_rcnn import GeneralizedRCNN
from .model_inputs import output_size
from .semantic_segmentor import compute_label_losses, predict_logits

__all__ = ["PanopticFPN", "combine_semantic_and_instance_outputs"]


class PanopticFPN(GeneralizedRCNN):
    """Panoptic FPN: Mask R-CNN with a semantic branch on the same pyramid.

    Args:
        sem_seg_head: such as ``SemSegFPNHead``; its class 0 stands for all things.
        combine_overlap_thresh: an instance is dropped if other instances cover more than this fraction of it.
        combine_stuff_area_thresh: stuff segments with fewer pixels are dropped.
        combine_instances_score_thresh: instances with a lower score are dropped.
        **kwargs: arguments of ``GeneralizedRCNN``.

    ``inference`` returns ``instances``, ``sem_seg`` and ``panoptic_seg`` per image; the last is the pair that
    ``combine_semantic_and_instance_outputs`` returns.

    Source: Kirillov et al. 2019 (arXiv:1901.02446).
    """

    sem_seg_head: SemanticHead

    def __init__(
        self,
        *,
        sem_seg_head: SemanticHead | partial[SemanticHead],
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
    def tasks(self) -> tuple[Task, ...]:
        """``panoptic``, the tasks of the ROI heads, and ``semantic``."""
        return ("panoptic", *super().tasks, "semantic")

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute the losses of the semantic head, the ROI heads and the proposal generator, in any mode.

        Args:
            batched_inputs: with ``instances`` and ``sem_seg``.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses = self._compute_semantic_losses(batched_inputs, features)
        return losses | self._compute_losses(batched_inputs, images, features)[0]

    @overload  # type: ignore[override]  # raw results contain the logits too, as documented
    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: Literal[True] = True,
    ) -> list[ModelOutput]: ...

    @overload
    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | bool | None = None,
        *,
        do_postprocess: bool = True,
    ) -> list[ModelOutput] | tuple[list[Instances], Tensor]: ...

    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | bool | None = None,
        do_postprocess: bool = True,
    ) -> list[ModelOutput] | tuple[list[Instances], Tensor]:
        """Predict instances and semantic labels, and combine them into segments, in any mode.

        Args:
            batched_inputs: see ``forward``; ``height`` and ``width`` are the output resolution, by default that of the
                input.
            detected_instances: per image, ``Instances`` with ``pred_boxes`` and ``pred_classes`` in the frame of the
                input; see ``GeneralizedRCNN.inference``. A bool counts as ``do_postprocess``, which is the second
                argument in the documented signature.
            do_postprocess: scale the results to the output resolution and combine them.

        Returns:
            One dict per image with ``instances``, ``sem_seg`` and ``panoptic_seg``; without post-processing, the
            ``Instances`` per image and the ``(B, K, H, W)`` logits, both in the frame of the padded input.
        """
        if isinstance(detected_instances, bool):
            do_postprocess = detected_instances
            detected_instances = None
        images = self.preprocess_image(batched_inputs)
        if self.is_compiled and detected_instances is None:
            detections, logits = self._run_compiled(images)
        else:
            features = self.backbone(images.tensor)
            logits = predict_logits(self.sem_seg_head, features)
            detections = self._detect(batched_inputs, images, features, detected_instances)
        if not do_postprocess:
            return detections, logits
        return self._combine(detections, logits, batched_inputs, images)

    def inference_padded(self, images: Tensor, image_sizes: ImageSizes) -> PaddedResults:
        """Predict instances and semantic logits as padded tensors; see ``MetaArchitecture.inference_padded``."""
        features = self.backbone(images)
        logits = predict_logits(self.sem_seg_head, features)
        return self._predict_padded(features, image_sizes)._replace(semantic_logits=logits)

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results from one pass through the backbone and one set of proposals, in any mode."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses = self._compute_semantic_losses(batched_inputs, features)
        detection_losses, proposals = self._compute_losses(batched_inputs, images, features)
        with torch.no_grad():
            logits = predict_logits(self.sem_seg_head, features)
            detections, _ = self.roi_heads(images, features, proposals)
            return losses | detection_losses, self._combine(detections, logits, batched_inputs, images)

    def detect_unpasted(
        self, batched_inputs: Sequence[ModelInput], *, with_losses: bool
    ) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses, if selected, and results that stay small for large images; in any mode.

        Args:
            batched_inputs: see ``forward``.
            with_losses: False returns no losses and does not read the ground truth.

        Returns:
            Losses, and one result per image. It is that of ``inference``, but ``pred_masks`` is ``ROIMasks`` and
            ``sem_seg`` is ``SemanticScores``, which are resized when they are read.
        """
        images = self.preprocess_image(batched_inputs)
        if self.is_compiled and not with_losses:
            return {}, self._combine(*self._run_compiled(images), batched_inputs, images, keep_small=True)
        features = self.backbone(images.tensor)
        losses: Losses = {}
        if with_losses:
            losses = self._compute_semantic_losses(batched_inputs, features)
            detection_losses, proposals = self._compute_losses(batched_inputs, images, features)
            losses |= detection_losses
        else:
            proposals = self.get_proposals(batched_inputs, images, features)
        with torch.no_grad():
            logits = predict_logits(self.sem_seg_head, features)
            detections, _ = self.roi_heads(images, features, proposals)
            return losses, self._combine(detections, logits, batched_inputs, images, keep_small=True)

    def _run_compiled(self, images: ImageList) -> tuple[list[Instances], Tensor]:
        """Return the detections and the semantic logits of the compiled core."""
        padded = self.run_core(images)
        assert padded.semantic_logits is not None
        return results_to_instances(padded, images.image_sizes), padded.semantic_logits

    def _compute_semantic_losses(
        self, batched_inputs: Sequence[ModelInput], features: Mapping[str, Tensor]
    ) -> Losses:
        return compute_label_losses(
            self.sem_seg_head, features, batched_inputs, backbone=self.backbone, device=self.device
        )

    def _combine(
        self,
        detections: Sequence[Instances],
        logits: Tensor,
        batched_inputs: Sequence[ModelInput],
        images: ImageList,
        *,
        keep_small: bool = False,
    ) -> list[ModelOutput]:
        """Return the results of each image; ``keep_small`` leaves masks and scores unpasted and unresized."""
        results: list[ModelOutput] = []
        final = self._postprocess(detections, batched_inputs, images.image_sizes, paste_masks=not keep_small)
        for output, scores, entry, size in zip(
            final, logits, batched_inputs, images.image_sizes, strict=True
        ):
            frame = output_size(entry, size)
            sem_seg: Tensor | SemanticScores
            if keep_small:
                sem_seg = SemanticScores(scores[:, : size[0], : size[1]], frame)
            else:
                sem_seg = sem_seg_postprocess(scores, size, *frame)
            labels = semantic_labels(sem_seg)
            instances = output["instances"]
            panoptic_seg = combine_semantic_and_instance_outputs(
                instances,
                labels,
                self.combine_overlap_thresh,
                self.combine_stuff_area_thresh,
                self.combine_instances_score_thresh,
            )
            results.append({"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic_seg})
        return results


def _instance_mask(instances: Instances, i: int, size: tuple[int, int]) -> Tensor:
    """Return the ``(H, W)`` bool mask of instance ``i``."""
    masks = instances.pred_masks
    if isinstance(masks, ROIMasks):
        return masks[i : i + 1].to_bitmasks(instances.pred_boxes.tensor[i : i + 1], *size).tensor[0]
    mask: Tensor = masks[i]
    return mask.to(torch.bool)


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[Tensor, list[SegmentInfo]]:
    """Assign each pixel to at most one segment: instances first, by descending score, then stuff.

    Args:
        instance_results: with ``pred_masks``, (N, H, W) bool or ``ROIMasks`` that are pasted one at a time, ``scores``
            and ``pred_classes``.
        semantic_results: ``(H, W)`` labels; 0 stands for things and gives no segment.
        overlap_threshold: an instance is dropped if better instances cover more than this fraction of it.
        stuff_area_thresh: a stuff segment needs at least this many free pixels.
        instances_score_thresh: instances with a lower score are dropped.

    Returns:
        ``(H, W)`` int32 segment ids, 0 for no segment; and one dict per segment with ``id`` (from 1), ``isthing`` and
        ``category_id``; things also have ``score`` and ``instance_id`` (the row of ``instance_results``), stuff has
        ``area``.

    Source: Kirillov et al. 2019 (arXiv:1801.00868), section 5 and the appendix on heuristics.
    """
    segments: list[SegmentInfo] = []
    segmentation, rows = _place_instances(
        instance_results, semantic_results, overlap_threshold, instances_score_thresh
    )
    labels, areas = _count_free_pixels(segmentation, semantic_results)
    # One transfer for all instances and one for all labels, whatever their number.
    scores, classes = instance_results.scores.tolist(), instance_results.pred_classes.tolist()
    for i in rows:
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": scores[i],
                "category_id": classes[i],
                "instance_id": i,
            }
        )
    ids = torch.zeros_like(labels, dtype=torch.int32)
    for label, area in enumerate(areas.tolist()):
        if label == 0 or area == 0 or area < stuff_area_thresh:
            continue
        segments.append({"id": len(segments) + 1, "isthing": False, "category_id": label, "area": area})
        ids[label] = len(segments)
    return torch.where(segmentation == 0, ids[semantic_results], segmentation), segments


def _place_instances(
    instances: Instances, labels: Tensor, overlap_threshold: float, score_threshold: float
) -> tuple[Tensor, list[int]]:
    """Give each instance the pixels that better instances have left, or drop it if they cover too much of it.

    The device decides about each instance; the host waits for the scores, and once for all decisions.

    Returns:
        ``(H, W)`` int32 ids from 1 in the order of the kept instances, and the rows of these instances.
    """
    segmentation = torch.zeros_like(labels, dtype=torch.int32)
    size = (labels.shape[0], labels.shape[1])
    scores = instances.scores.tolist()
    order = [
        i
        for i in instances.scores.argsort(descending=True, stable=True).tolist()
        if scores[i] >= score_threshold
    ]
    decisions = []
    last_id = segmentation.new_zeros(())
    for i in order:
        mask = _instance_mask(instances, i, size)
        free = mask & (segmentation == 0)
        area, num_free = mask.sum(), free.sum()
        covered = (area - num_free).double() / area.clamp(min=1)
        # A fully covered instance has no pixel left, even if the threshold admits it.
        is_kept = (num_free > 0) & (covered <= overlap_threshold)
        last_id = last_id + is_kept
        segmentation = torch.where(free & is_kept, last_id, segmentation)
        decisions.append(is_kept)
    flags = torch.stack(decisions).tolist() if decisions else []
    return segmentation, [i for i, is_kept in zip(order, flags, strict=True) if is_kept]


def _count_free_pixels(segmentation: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(C,)`` zeros with one entry per label, and the number of pixels of each label outside the segments."""
    num_labels = int(labels.max()) + 1 if labels.numel() > 0 else 1
    zeros = torch.zeros(num_labels, dtype=torch.int64, device=labels.device)
    return zeros, zeros.scatter_add(0, labels.flatten(), (segmentation == 0).flatten().long())
