"""FCOS.

N images, one location a cell, R_i = H_i * W_i locations on level i, R over all levels, K classes, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers.dense_ops import dense_focal_loss
from hydet.modeling.anchors import DefaultAnchorGenerator
from hydet.modeling.backbones import Backbone
from hydet.modeling.box_regression import Box2BoxTransformLinear, BoxTransform, dense_box_regression_loss
from hydet.modeling.selection.dense import (
    best_of_classes,
    by_anchor,
    by_cell,
    gather_anchors,
    top_anchors,
)
from hydet.structures import Boxes, ImageList, Instances

from .dense_detector import DenseDetector, Predictions
from .retinanet import RetinaNet, check_fit

__all__ = ["FCOS"]

SHORTEST, LONGEST = 4, 8  # a level is in charge of objects that reach so many strides from the location


class FCOS(DenseDetector):
    """Classifies locations, and regresses from each the distances to the sides of its object.

    A location is represented by a square anchor as large as the stride.

    Args:
        backbone: images to feature maps.
        head: such as ``FCOSHead``.
        head_in_features: names of the feature maps; by default all, from the smallest stride to the largest.
        box2box_transform: what the head's deltas mean; by default distances in strides.
        num_classes: foreground classes.
        center_sampling_radius: a location is positive within so many strides of an object's centre.
        focal_loss_alpha: weight of positives; negative for none.
        focal_loss_gamma: how much easy examples count less.
        test_score_thresh: detections score strictly more, where the score is the geometric mean of class
            probability and centerness.
        test_topk_candidates: pairs of location and class that enter the suppression, per level.
        test_nms_thresh: IoU above which the worse one of two detections of a class goes.
        max_detections_per_image: the best ones; negative for all.
        pixel_mean: see ``MetaArchitecture``.
        pixel_std: likewise.
        vis_period: likewise.
        input_format: likewise.

    Raises:
        ValueError: if head and model differ in their number of classes.

    The reference compares areas at a resolution of 8 square pixels when it looks for the smallest object around a
    location; here they are compared exactly.

    Source: Tian et al. 2019 (arXiv:1904.01355), with centre sampling.
    """

    initial_loss_normalizer: float = 300.0

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        box2box_transform: BoxTransform | None = None,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
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
        shapes = backbone.output_shape()
        strides = [s for name in self.head_in_features if (s := shapes[name].stride) is not None]
        if len(strides) < len(self.head_in_features):
            raise ValueError(f"FCOS needs the strides of its feature maps, got {shapes}")
        check_fit(self.head, num_classes=num_classes, num_anchors=[1] * len(strides))
        self.anchor_generator = DefaultAnchorGenerator(
            sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
        )
        if box2box_transform is None:
            box2box_transform = Box2BoxTransformLinear(normalize_by_size=True)
        self.box2box_transform = box2box_transform
        self.num_classes = num_classes
        self.center_sampling_radius = float(center_sampling_radius)
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
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
        """Label the locations, then ``losses``.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: the head's logits, deltas and centerness.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.
        """
        anchors = self.anchor_generator(features)
        logits = [by_anchor(x, self.num_classes) for x in predictions[0]]
        deltas = [by_anchor(x, 4) for x in predictions[1]]
        centerness = [by_anchor(x, 1) for x in predictions[2]]
        labels, boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, labels, deltas, boxes, centerness)

    @torch.no_grad()
    def label_anchors(
        self, anchors: Sequence[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Class and box that each location is responsible for.

        A location belongs to an object if it lies strictly inside, near enough to its centre, and if the farthest of
        its sides is as far away as suits the level; to the smallest such object.

        Args:
            anchors: per level, R_i squares.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.

        Returns:
            Per image, ``(R,)`` int64 labels: a class, or K for background; and ``(R, 4)`` boxes, zeros where there is
            no object.
        """
        every = Boxes.cat(anchors)
        size = every.tensor[:, 2] - every.tensor[:, 0]  # (R,)
        first, last = anchors[0].tensor.shape[0], size.shape[0] - anchors[-1].tensor.shape[0]
        place = torch.arange(size.shape[0], device=size.device)
        shortest = torch.where(place < first, 0.0, SHORTEST * size)
        longest = torch.where(place >= last, torch.inf, LONGEST * size)
        labels, boxes = [], []
        for truth in gt_instances:
            targets = truth.gt_boxes.tensor
            if targets.shape[0] == 0:
                labels.append(torch.full_like(place, self.num_classes))
                boxes.append(torch.zeros_like(every.tensor))
                continue
            mine = self._responsible(every.get_centers(), size, shortest, longest, targets)  # (M, R)
            area = torch.where(mine, truth.gt_boxes.area()[:, None], torch.inf)
            smallest, index = area.min(dim=0)
            taken = smallest < torch.inf
            labels.append(torch.where(taken, truth.gt_classes[index], self.num_classes))
            boxes.append(torch.where(taken[:, None], targets[index], 0.0))
        return labels, boxes

    def _responsible(
        self, points: Tensor, size: Tensor, shortest: Tensor, longest: Tensor, targets: Tensor
    ) -> Tensor:
        """``(M, R)`` bool: whether a location may predict an object."""
        x, y = points.unbind(1)  # (R,)
        x1, y1, x2, y2 = targets[:, :, None].unbind(1)  # (M, 1)
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y  # (M, R)
        nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
        off_center = torch.maximum((x - (x1 + x2) / 2).abs(), (y - (y1 + y2) / 2).abs())
        central = off_center < self.center_sampling_radius * size
        return central & (nearest > 0) & (farthest > shortest) & (farthest < longest)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        pred_centerness: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Focal loss over all locations; GIoU and centerness losses over positives.

        Args:
            anchors: per level, R_i squares.
            pred_logits: per level, ``(N, R_i, K)``.
            gt_labels: per image, ``(R,)`` as ``label_anchors`` gives them.
            pred_anchor_deltas: per level, ``(N, R_i, 4)``.
            gt_boxes: per image, ``(R, 4)``.
            pred_centerness: per level, ``(N, R_i, 1)`` logits.

        Returns:
            ``loss_fcos_cls``, ``loss_fcos_loc`` and ``loss_fcos_ctr``, sums divided by ``loss_normalizer``, which is
            updated first in training mode.
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
            box_reg_loss_type="giou",
        )
        targets = self.compute_ctrness_targets(anchors, gt_boxes)  # (N, R)
        predicted = torch.cat(list(pred_centerness), dim=1).squeeze(2).float()
        centerness = F.binary_cross_entropy_with_logits(
            predicted, targets, weight=positive.to(predicted.dtype), reduction="sum"
        )
        return {
            "loss_fcos_cls": classification / normalizer,
            "loss_fcos_loc": regression / normalizer,
            "loss_fcos_ctr": centerness / normalizer,
        }

    @torch.no_grad()
    def compute_ctrness_targets(self, anchors: Sequence[Boxes], gt_boxes: Sequence[Tensor]) -> Tensor:
        """How central each location is in its object: 1 at the centre, 0 at a side.

        Args:
            anchors: per level, R_i squares.
            gt_boxes: per image, ``(R, 4)`` boxes matched to the locations.

        Returns:
            ``(N, R)`` in [0, 1]; 0 for locations outside of their box.

        Source: Tian et al. 2019 (arXiv:1904.01355), equation 3.
        """
        x, y = Boxes.cat(anchors).get_centers().unbind(1)  # (R,)
        x1, y1, x2, y2 = torch.stack(list(gt_boxes)).unbind(2)  # (N, R)
        ratios = []
        for near, far in ((x - x1, x2 - x), (y - y1, y2 - y)):
            ratios.append((torch.minimum(near, far) / torch.maximum(near, far).clamp(min=1e-6)).clamp(min=0))
        return (ratios[0] * ratios[1]).sqrt()

    def forward_inference(
        self, images: ImageList, features: Sequence[Tensor], predictions: Predictions
    ) -> list[Instances]:
        """Detections of all images at once; see ``inference_single_image``.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: the head's logits, deltas and centerness.
        """
        logits = [by_cell(x, self.num_classes) for x in predictions[0]]  # (N, H, W, 1, K)
        deltas = [by_cell(x, 4) for x in predictions[1]]
        centerness = [by_cell(x, 1).float().sigmoid() for x in predictions[2]]  # (N, H, W, 1, 1)
        rows, scores = [], []
        for raw, level, central in zip(predictions[0], logits, centerness, strict=True):
            best = best_of_classes(raw, self.num_classes).float().sigmoid() * central.flatten(1)  # (N, R_i)
            row = top_anchors(best, self.test_topk_candidates)
            rows.append(row)
            scores.append((gather_anchors(level, row).float().sigmoid() * gather_anchors(central, row)).sqrt())  # (N, k, K)
        return self._detect(self.anchor_generator(features), rows, scores, deltas, images.image_sizes)

    inference_single_image = RetinaNet.inference_single_image
