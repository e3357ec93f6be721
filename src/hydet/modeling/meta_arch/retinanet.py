"""RetinaNet: a one-stage detector with anchors and a focal loss.

N images, A anchors per cell, R_i = H_i * W_i * A anchors on level i, R over all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hydet.layers.dense_ops import dense_focal_loss
from hydet.modeling.anchors import DefaultAnchorGenerator
from hydet.modeling.box_regression import BoxTransform, dense_box_regression_loss
from hydet.modeling.matcher import Matcher, match_boxes
from hydet.modeling.protocols import BackboneProtocol
from hydet.modeling.selection.dense import (
    best_of_classes,
    by_anchor,
    by_cell,
    gather_anchors,
    top_anchors,
)
from hydet.modeling.selection.suppression import ImageSizes, SelectedBoxes
from hydet.structures import Boxes, ImageList, Instances, Losses

from .dense_detector import DenseDetector, Predictions

__all__ = ["RetinaNet"]


class RetinaNet(DenseDetector):
    """RetinaNet: classifies anchors with a focal loss, and regresses boxes from them.

    Args:
        backbone: computes feature maps from images.
        head: such as ``RetinaNetHead``.
        head_in_features: names of the feature maps, from high to low resolution.
        anchor_generator: such as ``DefaultAnchorGenerator``.
        box2box_transform: encodes boxes as deltas and decodes them.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        num_classes: number of foreground classes.
        focal_loss_alpha: weight of positives; negative for none.
        focal_loss_gamma: exponent that reduces the loss of easy examples.
        smooth_l1_beta: error at which smooth L1 becomes linear; 0 for plain L1.
        box_reg_loss_type: ``smooth_l1``, ``giou``, ``diou`` or ``ciou``.
        test_score_thresh: only higher scores become detections.
        test_topk_candidates: number of pairs of anchor and class per level that enter the suppression.
        test_nms_thresh: IoU above which the lower-scoring one of two detections of a class is dropped.
        max_detections_per_image: number of detections with the highest scores; negative for all.
        test_clip_boxes: clip boxes to the image before the suppression; see ``DenseDetector``.
        test_drop_empty_boxes: drop boxes without area before the suppression; see ``DenseDetector``.
        pixel_mean: mean per channel; see ``MetaArchitecture``.
        pixel_std: standard deviation per channel; see ``MetaArchitecture``.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.
        input_format: channel order that the weights expect.

    Raises:
        ValueError: if parts do not fit together.

    Source: Lin et al. 2017 (arXiv:1708.02002).
    """

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        head: nn.Module | partial[nn.Module],
        head_in_features: Sequence[str],
        anchor_generator: DefaultAnchorGenerator,
        box2box_transform: BoxTransform,
        anchor_matcher: Matcher,
        num_classes: int,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        test_clip_boxes: bool = False,
        test_drop_empty_boxes: bool = False,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        input_format: str | None = "BGR",
    ) -> None:
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=head_in_features,
            anchor_generator=anchor_generator,
            box2box_transform=box2box_transform,
            num_classes=num_classes,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            test_clip_boxes=test_clip_boxes,
            test_drop_empty_boxes=test_drop_empty_boxes,
            initial_loss_normalizer=100.0,  # the usual number of positive anchors; any value not close to 0 would do
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.anchor_matcher = anchor_matcher
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type

    def forward_training(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Predictions,
        gt_instances: Sequence[Instances],
    ) -> Losses:
        """Label the anchors and compute their losses; see ``losses``.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: logits and deltas from the head.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.
        """
        anchors = self.anchor_generator(features)
        logits = [by_anchor(x, self.num_classes) for x in predictions[0]]
        deltas = [by_anchor(x, 4) for x in predictions[1]]
        labels, boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, labels, deltas, boxes)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> Losses:
        """Compute the focal loss of all anchors that are not ignored, and the box loss of positive ones.

        Args:
            anchors: per level, R_i boxes.
            pred_logits: per level, ``(N, R_i, K)``.
            gt_labels: per image, ``(R,)`` labels from ``label_anchors``.
            pred_anchor_deltas: per level, ``(N, R_i, 4)``.
            gt_boxes: per image, ``(R, 4)``.

        Returns:
            ``loss_cls`` and ``loss_box_reg``: sums divided by ``loss_normalizer``, which training mode updates first.
            Nearly all anchors are easy background with a loss close to 0, so a mean over all anchors would be tiny.
        """
        labels = torch.stack(list(gt_labels))  # (N, R)
        positive = (labels >= 0) & (labels != self.num_classes)
        normalizer = self._update_normalizer(positive.sum())
        classification = dense_focal_loss(
            pred_logits, labels, alpha=self.focal_loss_alpha, gamma=self.focal_loss_gamma
        )
        regression = dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            positive,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {"loss_cls": classification / normalizer, "loss_box_reg": regression / normalizer}

    @torch.no_grad()
    def label_anchors(
        self, anchors: Sequence[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Assign a class and a ground-truth box to each anchor.

        Args:
            anchors: per level, R_i boxes.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.

        Returns:
            Per image, ``(R,)`` int64 labels: a class, K for background or -1 to ignore; and ``(R, 4)`` boxes, zeros
            in an image without ground truth.
        """
        all_anchors = Boxes.cat(anchors)
        labels, boxes = [], []
        for gt in gt_instances:
            gt_boxes = gt.gt_boxes.tensor
            matches, match_labels = match_boxes(self.anchor_matcher, gt.gt_boxes, all_anchors)
            if gt_boxes.shape[0] > 0:
                matched_boxes, classes = gt_boxes[matches], gt.gt_classes[matches]
            else:
                matched_boxes = torch.zeros_like(all_anchors.tensor)
                classes = torch.full_like(matches, self.num_classes)
            classes = classes.masked_fill(match_labels == 0, self.num_classes)
            labels.append(classes.masked_fill(match_labels == -1, -1))
            boxes.append(matched_boxes)
        return labels, boxes

    def select(
        self, features: Sequence[Tensor], predictions: Predictions, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select the detections of all images.

        Args:
            features: per level, ``(N, C, H, W)``.
            predictions: logits and deltas from the head.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them.
        """
        logits = [by_cell(x, self.num_classes) for x in predictions[0]]  # (N, H, W, A, K)
        deltas = [by_cell(x, 4) for x in predictions[1]]
        best = [best_of_classes(x, self.num_classes) for x in predictions[0]]  # (N, R_i)
        rows = [top_anchors(x, self.test_topk_candidates) for x in best]
        scores = [gather_anchors(x, row).float().sigmoid() for x, row in zip(logits, rows, strict=True)]
        return self._select(self.anchor_generator(features), rows, scores, deltas, image_sizes)
