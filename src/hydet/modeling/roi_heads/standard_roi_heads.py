"""ROI heads with separate branches for boxes, masks and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.padded import PaddedDetections, PaddedRegions, RegionLogits, to_detections, to_rois
from hydet.modeling.protocols import DetectionLimits, Task
from hydet.modeling.selection import select_foreground_proposals, select_proposals_with_visible_keypoints
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import Boxes, ImageList, Instances, Losses

from .checks import check_box_predictor, check_given_boxes, check_mask_head
from .interfaces import BoxPredictions, BoxPredictor, Features, RegionHead, RegionPooler
from .region_calls import (
    as_padded,
    compute_region_losses,
    predict_keypoint_logits,
    predict_mask_logits,
    predict_regions,
)
from .roi_heads import ROIHeads

__all__ = ["StandardROIHeads"]


class StandardROIHeads(ROIHeads):
    """ROI heads with separate branches for boxes, masks and keypoints, each with a pooler and a head.

    Masks and keypoints train on foreground proposals and are predicted for the detected boxes. A subclass that changes
    one branch overrides ``_box_losses`` and ``_detect``, ``_mask_losses`` and ``_predict_masks``, or
    ``_keypoint_losses`` and ``_predict_keypoints``.

    Args:
        box_in_features: names of the feature maps for boxes.
        box_pooler: pools regions from them.
        box_head: computes the input of ``box_predictor`` from pooled features.
        box_predictor: such as ``FastRCNNOutputLayers``.
        mask_in_features: names of the feature maps for masks; ``None`` without a mask branch.
        mask_pooler: pools regions from them; ``None`` if the head reads the feature maps themselves, by name.
        mask_head: such as ``MaskRCNNConvUpsampleHead``.
        keypoint_in_features: names of the feature maps for keypoints; ``None`` without a keypoint branch.
        keypoint_pooler: pools regions from them; ``None`` if the head reads the feature maps themselves, by name.
        keypoint_head: such as ``KRCNNConvDeconvUpsampleHead``.
        train_on_pred_boxes: train masks and keypoints on the predicted boxes of the ground-truth classes instead of
            the proposals.
        **kwargs: arguments of ``ROIHeads``.

    Raises:
        ValueError: if parts do not fit together.

    Source: He et al. 2017 (arXiv:1703.06870).
    """

    box_predictor: BoxPredictor

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: RegionPooler,
        box_head: nn.Module,
        box_predictor: BoxPredictor,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: RegionPooler | None = None,
        mask_head: RegionHead | None = None,
        keypoint_in_features: Sequence[str] | None = None,
        keypoint_pooler: RegionPooler | None = None,
        keypoint_head: RegionHead | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        for branch, names, head in (
            ("mask", mask_in_features, mask_head),
            ("keypoint", keypoint_in_features, keypoint_head),
        ):
            if (names is None) != (head is None):
                raise ValueError(f"{branch}_in_features and {branch}_head go together, got only one of them")
        self.mask_on = mask_in_features is not None
        if mask_in_features is not None and mask_head is not None:
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head
        self.keypoint_on = keypoint_in_features is not None
        if keypoint_in_features is not None and keypoint_head is not None:
            self.keypoint_in_features = list(keypoint_in_features)
            self.keypoint_pooler = keypoint_pooler
            self.keypoint_head = keypoint_head
        self.train_on_pred_boxes = train_on_pred_boxes
        self._check_num_classes()

    def _box_predictors(self) -> Sequence[BoxPredictor]:
        """Return the box predictors of all stages; the last one gives the detections."""
        return [self.box_predictor]

    def _check_num_classes(self) -> None:
        for predictor in self._box_predictors():
            check_box_predictor(predictor, self.num_classes)
        if self.mask_on:
            check_mask_head(self.mask_head, self.num_classes)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """``box``, and ``mask`` and ``keypoints`` if the heads have these branches."""
        branches: list[tuple[Task, bool]] = [
            ("box", True),
            ("mask", self.mask_on),
            ("keypoints", self.keypoint_on),
        ]
        return tuple(task for task, is_on in branches if is_on)

    @property
    def detection_limits(self) -> DetectionLimits:
        """NMS threshold and maximum number of detections per image, from the last box predictor."""
        predictor = self._box_predictors()[-1]
        return DetectionLimits(predictor.test_nms_thresh, predictor.test_topk_per_image)

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Compute losses or detections; see ``ROIHeads.forward``."""
        if targets is None:
            return self.forward_with_given_boxes(features, self._detect(features, proposals)), {}
        sampled = self.label_and_sample_proposals(proposals, targets)
        losses, sampled = self._box_losses(features, sampled, targets)
        if self.mask_on:
            losses.update(self._mask_losses(features, sampled))
        if self.keypoint_on:
            losses.update(self._keypoint_losses(features, sampled))
        return sampled, losses

    def detect_boxes(
        self, images: ImageList, features: Features, proposals: Sequence[Instances]
    ) -> list[Instances]:
        """Detect boxes only; see ``ROIHeads.detect_boxes``."""
        return self._detect(features, proposals)

    def forward_with_given_boxes(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        """Predict masks and keypoints for known boxes.

        Args:
            features: feature maps by name, ``(N, C, H, W)`` each.
            instances: per image, with ``pred_boxes`` and ``pred_classes``.

        Returns:
            New ``Instances`` in the same order, with ``pred_masks`` and ``pred_keypoints`` if the heads have these
            branches.

        Raises:
            ValueError: if a field is missing.
        """
        check_given_boxes(instances)
        results = list(instances)
        if self.mask_on:
            results = self._predict_masks(features, results)
        if self.keypoint_on:
            results = self._predict_keypoints(features, results)
        return results

    def _box_losses(
        self, features: Features, proposals: list[Instances], targets: Sequence[Instances]
    ) -> tuple[Losses, list[Instances]]:
        """Return the box losses of sampled proposals, and the proposals for the other branches."""
        predictions = self._predict(features, proposals)
        losses = self.box_predictor.losses(predictions, proposals)
        if self.train_on_pred_boxes:
            proposals = self._move_to_predicted_boxes(predictions, proposals)
        return losses, proposals

    @torch.no_grad()
    def _move_to_predicted_boxes(
        self, predictions: BoxPredictions, proposals: list[Instances]
    ) -> list[Instances]:
        boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
        moved = [copy(proposals_i) for proposals_i in proposals]
        for moved_i, boxes_i in zip(moved, boxes, strict=True):
            moved_i.proposal_boxes = Boxes(boxes_i)
        return moved

    def _detect(self, features: Features, proposals: Sequence[Instances]) -> list[Instances]:
        """Detect boxes, classes and scores."""
        detections, _ = self.box_predictor.inference(self._predict(features, proposals), proposals)
        return detections

    def detect_padded(
        self, features: Features, regions: PaddedRegions, image_sizes: ImageSizes
    ) -> PaddedDetections:
        """Detect boxes without waiting for the device; see ``ROIHeads.detect_padded``."""
        predictor = as_padded(self.box_predictor)
        x = self.box_pooler.pool([features[name] for name in self.box_in_features], to_rois(regions.boxes))
        predictions = self.box_predictor(self.box_head(x))
        return to_detections(predictor.select(predictions, regions, image_sizes))

    def predict_padded(self, features: Features, detections: PaddedDetections) -> RegionLogits:
        """Predict masks and keypoints of all detections, padding included; see ``ROIHeads.predict_padded``."""
        rois = to_rois(detections.boxes)
        masks = keypoints = None
        if self.mask_on:
            x = _pool_padded(features, self.mask_in_features, self.mask_pooler, rois)
            masks = predict_mask_logits(self.mask_head, x, detections)
        if self.keypoint_on:
            x = _pool_padded(features, self.keypoint_in_features, self.keypoint_pooler, rois)
            keypoints = predict_keypoint_logits(self.keypoint_head, x, detections)
        return RegionLogits(masks, keypoints)

    def _predict(self, features: Features, proposals: Sequence[Instances]) -> BoxPredictions:
        pooled = self.box_pooler(
            [features[name] for name in self.box_in_features], [p.proposal_boxes for p in proposals]
        )
        return self.box_predictor(self.box_head(pooled))

    def _mask_losses(self, features: Features, proposals: Sequence[Instances]) -> Losses:
        """Return the mask losses of sampled proposals; only foreground has a mask to learn."""
        foreground, _ = select_foreground_proposals(proposals, self.num_classes)
        boxes = [p.proposal_boxes for p in foreground]
        x = _pool(features, self.mask_in_features, self.mask_pooler, boxes)
        return compute_region_losses(self.mask_head, x, foreground)

    def _predict_masks(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        boxes = [p.pred_boxes for p in instances]
        x = _pool(features, self.mask_in_features, self.mask_pooler, boxes)
        return predict_regions(self.mask_head, x, instances)

    def _keypoint_losses(self, features: Features, proposals: Sequence[Instances]) -> Losses:
        """Return the keypoint losses of sampled proposals; only foreground with a visible keypoint counts."""
        foreground, _ = select_foreground_proposals(proposals, self.num_classes)
        foreground = select_proposals_with_visible_keypoints(foreground)
        boxes = [p.proposal_boxes for p in foreground]
        x = _pool(features, self.keypoint_in_features, self.keypoint_pooler, boxes)
        return compute_region_losses(self.keypoint_head, x, foreground)

    def _predict_keypoints(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        boxes = [p.pred_boxes for p in instances]
        x = _pool(features, self.keypoint_in_features, self.keypoint_pooler, boxes)
        return predict_regions(self.keypoint_head, x, instances)


def _pool_padded(
    features: Features, names: Sequence[str], pooler: RegionPooler | None, rois: Tensor
) -> Tensor:
    if pooler is None:
        raise TypeError("a head without a pooler reads feature maps itself; it has no tensor core")
    return pooler.pool([features[name] for name in names], rois)


def _pool(
    features: Features, names: Sequence[str], pooler: RegionPooler | None, boxes: list[Boxes]
) -> Tensor | Features:
    """Return the input of a head: pooled features, or the feature maps by name if it has no pooler."""
    if pooler is None:
        return {name: features[name] for name in names}
    return pooler([features[name] for name in names], boxes)
