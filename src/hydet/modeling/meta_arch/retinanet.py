"""RetinaNet.

N images, A anchors a cell, R_i = H_i * W_i * A anchors on level i, R over all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hydet.layers.dense_ops import dense_focal_loss
from hydet.modeling.anchors import DefaultAnchorGenerator
from hydet.modeling.backbones import Backbone
from hydet.modeling.box_regression import BoxTransform, dense_box_regression_loss
from hydet.modeling.matcher import Matcher, match_boxes
from hydet.modeling.selection.dense import (
    best_of_classes,
    by_anchor,
    by_cell,
    gather_anchors,
    top_anchors,
)
from hydet.structures import Boxes, ImageList, Instances

from .dense_detector import DenseDetector, Predictions

__all__ = ["RetinaNet"]


class RetinaNet(DenseDetector):
    """Classifies and regresses anchors with a focal loss.

    Args:
        backbone: images to feature maps.
        head: such as ``RetinaNetHead``.
        head_in_features: names of the feature maps, from high to low resolution.
        anchor_generator: such as ``DefaultAnchorGenerator``.
        box2box_transform: what the head's deltas mean.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        num_classes: foreground classes.
        focal_loss_alpha: weight of positives; negative for none.
        focal_loss_gamma: how much easy examples count less.
        smooth_l1_beta: where smooth L1 becomes linear; 0 for plain L1.
        box_reg_loss_type: ``smooth_l1``, ``giou``, ``diou`` or ``ciou``.
        test_score_thresh: detections score strictly more.
        test_topk_candidates: pairs of anchor and class that enter the suppression, per level.
        test_nms_thresh: IoU above which the worse one of two detections of a class goes.
        max_detections_per_image: the best ones; negative for all.
        pixel_mean: see ``MetaArchitecture``.
        pixel_std: likewise.
        vis_period: likewise.
        input_format: likewise.

    Raises:
        ValueError: if parts do not fit together.

    Source: Lin et al. 2017 (arXiv:1708.02002).
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
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
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        input_format: str | None = "BGR",
    ) -> None:
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=head_in_features,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        check_fit(self.head, num_classes=num_classes, num_anchors=anchor_generator.num_anchors)
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.anchor_matcher = anchor_matcher
        self.num_classes = num_classes
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image

    def forward_training(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Predictions,
        gt_instances: Sequence[Instances],
    ) -> dict[str, Tensor]:
        """Label the anchors, then ``losses``.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: the head's logits and deltas.
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
    ) -> dict[str, Tensor]:
        """Focal loss over all anchors that are not ignored, and box loss over positives.

        Args:
            anchors: per level, R_i boxes.
            pred_logits: per level, ``(N, R_i, K)``.
            gt_labels: per image, ``(R,)`` as ``label_anchors`` gives them.
            pred_anchor_deltas: per level, ``(N, R_i, 4)``.
            gt_boxes: per image, ``(R, 4)``.

        Returns:
            ``loss_cls`` and ``loss_box_reg``, sums divided by ``loss_normalizer``, which is updated first in
            training mode.
        """
        labels = torch.stack(list(gt_labels))  # (N, R)
        positive = (labels >= 0) & (labels != self.num_classes)
        normalizer = self._updated_normalizer(positive.sum())
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
        """Class and box that each anchor is responsible for.

        Args:
            anchors: per level, R_i boxes.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.

        Returns:
            Per image, ``(R,)`` int64 labels: a class, K for background or -1 to ignore; and ``(R, 4)`` boxes, zeros
            in an image without ground truth.
        """
        every = Boxes.cat(anchors)
        labels, boxes = [], []
        for truth in gt_instances:
            matches, kinds = match_boxes(self.anchor_matcher, truth.gt_boxes, every)
            if truth.gt_boxes.tensor.shape[0] > 0:
                found, of_class = truth.gt_boxes.tensor[matches], truth.gt_classes[matches]
            else:
                found, of_class = torch.zeros_like(every.tensor), torch.full_like(matches, self.num_classes)
            of_class = of_class.masked_fill(kinds == 0, self.num_classes)
            labels.append(of_class.masked_fill(kinds == -1, -1))
            boxes.append(found)
        return labels, boxes

    def forward_inference(
        self, images: ImageList, features: Sequence[Tensor], predictions: Predictions
    ) -> list[Instances]:
        """Detections of all images at once; see ``inference_single_image``.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: the head's logits and deltas.
        """
        logits = [by_cell(x, self.num_classes) for x in predictions[0]]  # (N, H, W, A, K)
        deltas = [by_cell(x, 4) for x in predictions[1]]
        best = [best_of_classes(x, self.num_classes) for x in predictions[0]]  # (N, R_i)
        rows = [top_anchors(x, self.test_topk_candidates) for x in best]
        scores = [gather_anchors(x, row).float().sigmoid() for x, row in zip(logits, rows, strict=True)]
        return self._detect(self.anchor_generator(features), rows, scores, deltas, images.image_sizes)

    def inference_single_image(
        self,
        anchors: Sequence[Boxes],
        box_cls: Sequence[Tensor],
        box_delta: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """Detections of one image from its scores.

        Args:
            anchors: per level, R_i boxes.
            box_cls: per level, ``(R_i, K)`` scores in [0, 1].
            box_delta: per level, ``(R_i, 4)``.
            image_size: (height, width).

        Returns:
            ``pred_boxes`` (not clipped), ``scores`` and ``pred_classes``, by descending score.
        """
        scores = [x[None] for x in box_cls]
        rows = [top_anchors(x.amax(dim=-1), self.test_topk_candidates) for x in scores]
        picked = [gather_anchors(x, row).float() for x, row in zip(scores, rows, strict=True)]
        return self._detect(anchors, rows, picked, [x[None] for x in box_delta], [image_size])[0]


def check_fit(head: nn.Module, *, num_classes: int, num_anchors: Sequence[int]) -> None:
    """A head of our own, whose numbers are known, must predict for the classes and anchors that there are."""
    if getattr(head, "num_classes", num_classes) != num_classes:
        raise ValueError(f"head predicts {head.num_classes} classes, the model has num_classes={num_classes}")
    counts = set(num_anchors)
    if hasattr(head, "num_anchors") and counts != {head.num_anchors}:
        raise ValueError(
            f"head predicts for {head.num_anchors} anchors a cell, anchor_generator makes {counts}"
        )
