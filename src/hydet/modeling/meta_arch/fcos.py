"""FCOS: a one-stage detector without anchor shapes.

N images, one location per cell, R_i = H_i * W_i locations on level i, R over all levels, K classes, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers.dense_ops import dense_focal_loss
from hydet.modeling.anchors import DefaultAnchorGenerator
from hydet.modeling.box_regression import Box2BoxTransformLinear, BoxTransform, dense_box_regression_loss
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
from .dense_heads import get_level_shapes

__all__ = ["FCOS"]

# The matrix of locations and objects is computed in tiles of this many pairs, whose temporaries stay in the cache.
PAIRS_PER_TILE = 1 << 18

# A level predicts objects whose farthest side is this many strides from the location. With strides 8 to 128 these are
# the ranges of the paper: 64, 128, 256 and 512 pixels.
MIN_REACH, MAX_REACH = 4, 8

SCORES = ("geometric_mean", "product")


class FCOS(DenseDetector):
    """FCOS: classifies locations, and regresses the distances from each location to the sides of its object.

    A square anchor with the side of the stride represents a location.

    Args:
        backbone: computes feature maps from images.
        head: such as ``FCOSHead``.
        head_in_features: names of the feature maps; by default all, from the smallest stride to the largest.
        anchor_generator: makes one square anchor with the side of the stride per cell; by default around its center.
        box2box_transform: encodes boxes as deltas and decodes them; by default as distances in strides.
        num_classes: number of foreground classes.
        center_sampling_radius: a location is positive within this many strides of an object's center.
        focal_loss_alpha: weight of positives; negative for none.
        focal_loss_gamma: exponent that reduces the loss of easy examples.
        test_score_thresh: only higher scores become detections.
        test_score: ``geometric_mean`` of class probability and centerness, or their ``product``, as in the paper. With
            the product, class probabilities alone pass ``test_score_thresh`` and select the candidates of a level.
        test_topk_candidates: number of pairs of location and class per level that enter the suppression.
        test_nms_thresh: IoU above which the lower-scoring one of two detections of a class is dropped.
        max_detections_per_image: number of detections with the highest scores; negative for all.
        test_clip_boxes: clip boxes to the image before the suppression; see ``DenseDetector``.
        test_drop_empty_boxes: drop boxes without area before the suppression; see ``DenseDetector``.
        pixel_mean: mean per channel; see ``MetaArchitecture``.
        pixel_std: standard deviation per channel; see ``MetaArchitecture``.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.
        input_format: channel order that the weights expect.

    Raises:
        ValueError: if head and model differ in their number of classes, or a stride is unknown.

    Areas are compared exactly to find the smallest object around a location. The reference compares them at a
    resolution of 8 square pixels.

    Source: Tian et al. 2019 (arXiv:1904.01355), with center sampling.
    """

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        head: nn.Module | partial[nn.Module],
        head_in_features: Sequence[str] | None = None,
        anchor_generator: DefaultAnchorGenerator | None = None,
        box2box_transform: BoxTransform | None = None,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        test_score_thresh: float = 0.2,
        test_score: str = "geometric_mean",
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        test_clip_boxes: bool = False,
        test_drop_empty_boxes: bool = False,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        input_format: str | None = "BGR",
    ) -> None:
        shapes = get_level_shapes(backbone, head_in_features)
        strides = [shape.stride for shape in shapes.values() if shape.stride is not None]
        if len(strides) < len(shapes):
            raise ValueError(f"FCOS needs the strides of its feature maps, got {shapes}")
        if test_score not in SCORES:
            raise ValueError(f"test_score must be one of {', '.join(SCORES)}, got {test_score!r}")
        if anchor_generator is None:
            anchor_generator = DefaultAnchorGenerator(
                sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
            )
        if box2box_transform is None:
            box2box_transform = Box2BoxTransformLinear(normalize_by_size=True)
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=list(shapes),
            anchor_generator=anchor_generator,
            box2box_transform=box2box_transform,
            num_classes=num_classes,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            test_clip_boxes=test_clip_boxes,
            test_drop_empty_boxes=test_drop_empty_boxes,
            initial_loss_normalizer=300.0,  # center sampling yields more positives per batch than anchor matching
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.test_score = test_score
        self.center_sampling_radius = float(center_sampling_radius)
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma

    def forward_training(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Predictions,
        gt_instances: Sequence[Instances],
    ) -> Losses:
        """Label the locations and compute their losses; see ``losses``.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: logits, deltas and centerness from the head.
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
        """Assign an object to each location.

        A location belongs to an object if it lies strictly inside the box, near enough to its center, and if the
        distance to the farthest side of the box is in the range of the level. Among several such objects, it belongs to
        the smallest one.

        Args:
            anchors: per level, R_i squares.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.

        Returns:
            Per image, ``(R,)`` int64 labels: a class, or K for background; and ``(R, 4)`` boxes, zeros for background.
        """
        all_anchors = Boxes.cat(anchors)
        strides = all_anchors.tensor[:, 2] - all_anchors.tensor[:, 0]  # (R,)
        # The first level has no lower limit and the last one no upper limit, so each object has a level.
        first = anchors[0].tensor.shape[0]
        last = strides.shape[0] - anchors[-1].tensor.shape[0]
        location = torch.arange(strides.shape[0], device=strides.device)
        min_reach = torch.where(location < first, 0.0, MIN_REACH * strides)
        max_reach = torch.where(location >= last, torch.inf, MAX_REACH * strides)
        labels, boxes = [], []
        for gt in gt_instances:
            gt_boxes = gt.gt_boxes.tensor
            if gt_boxes.shape[0] == 0:
                labels.append(torch.full_like(location, self.num_classes))
                boxes.append(torch.zeros_like(all_anchors.tensor))
                continue
            is_positive, index = self._match(
                all_anchors.get_centers(), strides, min_reach, max_reach, gt_boxes
            )
            labels.append(torch.where(is_positive, gt.gt_classes[index], self.num_classes))
            boxes.append(torch.where(is_positive[:, None], gt_boxes[index], 0.0))
        return labels, boxes

    def _match(
        self, points: Tensor, strides: Tensor, min_reach: Tensor, max_reach: Tensor, gt_boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ``(R,)`` bool, True where a location predicts an object, and the ``(R,)`` index of that object.

        Never stores the matrix of all M objects and R locations.
        """
        num_objects = gt_boxes.shape[0]
        area = Boxes(gt_boxes).area()[:, None]
        object_index = torch.arange(num_objects, device=gt_boxes.device)[:, None]
        tile_size = max(1, PAIRS_PER_TILE // num_objects)
        is_positive, matches = [], []
        for first in range(0, max(1, points.shape[0]), tile_size):
            tile = slice(first, first + tile_size)
            may_predict = self._may_predict(
                points[tile], strides[tile], min_reach[tile], max_reach[tile], gt_boxes
            )
            candidate_area = torch.where(may_predict, area, torch.inf)  # (M, tile)
            smallest = candidate_area.amin(dim=0)
            is_positive.append(smallest < torch.inf)
            # The first one of the smallest objects. min(dim=0) would return it too, but is several times slower.
            is_smallest = candidate_area == smallest
            matches.append(torch.where(is_smallest, object_index, num_objects - 1).amin(dim=0))
        return torch.cat(is_positive), torch.cat(matches)

    def _may_predict(
        self, points: Tensor, strides: Tensor, min_reach: Tensor, max_reach: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """Return ``(M, R)`` bool: True where a location may predict an object."""
        x, y = points.unbind(1)  # (R,)
        x1, y1, x2, y2 = gt_boxes[:, :, None].unbind(1)  # (M, 1)
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y  # (M, R)
        nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
        off_center = torch.maximum((x - (x1 + x2) / 2).abs(), (y - (y1 + y2) / 2).abs())
        central = off_center < self.center_sampling_radius * strides
        return central & (nearest > 0) & (farthest > min_reach) & (farthest < max_reach)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        pred_centerness: Sequence[Tensor],
    ) -> Losses:
        """Compute the focal loss of all locations, and the GIoU and centerness losses of positive ones.

        Args:
            anchors: per level, R_i squares.
            pred_logits: per level, ``(N, R_i, K)``.
            gt_labels: per image, ``(R,)`` labels from ``label_anchors``.
            pred_anchor_deltas: per level, ``(N, R_i, 4)``.
            gt_boxes: per image, ``(R, 4)``.
            pred_centerness: per level, ``(N, R_i, 1)`` logits.

        Returns:
            ``loss_fcos_cls``, ``loss_fcos_loc`` and ``loss_fcos_ctr``: sums divided by ``loss_normalizer``, which
            training mode updates first.
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
        """Compute the centerness of each location in its object: 1 at the center, 0 at a side.

        Args:
            anchors: per level, R_i squares.
            gt_boxes: per image, ``(R, 4)`` boxes matched to the locations.

        Returns:
            ``(N, R)`` in [0, 1]; 0 for locations outside their box.

        Source: Tian et al. 2019 (arXiv:1904.01355), equation 3.
        """
        x, y = Boxes.cat(anchors).get_centers().unbind(1)  # (R,)
        x1, y1, x2, y2 = torch.stack(list(gt_boxes)).unbind(2)  # (N, R)
        ratios = []
        for near, far in ((x - x1, x2 - x), (y - y1, y2 - y)):
            ratios.append((torch.minimum(near, far) / torch.maximum(near, far).clamp(min=1e-6)).clamp(min=0))
        return (ratios[0] * ratios[1]).sqrt()

    def select(
        self, features: Sequence[Tensor], predictions: Predictions, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select the detections of all images.

        Args:
            features: per level, ``(N, C, H, W)``.
            predictions: logits, deltas and centerness from the head.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them.
        """
        logits = [by_cell(x, self.num_classes) for x in predictions[0]]  # (N, H, W, 1, K)
        deltas = [by_cell(x, 4) for x in predictions[1]]
        centerness = [by_cell(x, 1).float().sigmoid() for x in predictions[2]]  # (N, H, W, 1, 1)
        rows, scores, factors = [], [], []
        for raw, level, central in zip(predictions[0], logits, centerness, strict=True):
            # A positive factor per location does not change which class is best, so the best anchors follow from one
            # class each.
            best = best_of_classes(raw, self.num_classes).float().sigmoid()  # (N, R_i)
            if self.test_score == "geometric_mean":
                best = best * central.flatten(1)
            row = top_anchors(best, self.test_topk_candidates)
            rows.append(row)
            scores.append(gather_anchors(level, row).float().sigmoid())  # (N, k, K)
            factors.append(gather_anchors(central, row))  # (N, k, 1)
        anchors = self.anchor_generator(features)
        if self.test_score == "product":
            return self._select(anchors, rows, scores, deltas, image_sizes, factors=factors)
        means = [(score * factor).sqrt() for score, factor in zip(scores, factors, strict=True)]
        return self._select(anchors, rows, means, deltas, image_sizes)
