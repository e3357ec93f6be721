"""Box predictor of Fast R-CNN: class scores and box deltas of regions, their losses, and detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Linear, ShapeSpec, cross_entropy
from hydet.modeling.box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Box2BoxTransformRotated,
    box_regression_loss,
)
from hydet.modeling.class_rows import ClassRows
from hydet.modeling.padded import PaddedRegions
from hydet.modeling.selection import fast_rcnn_inference
from hydet.modeling.selection.detections import select_region_boxes
from hydet.modeling.selection.suppression import ImageSizes, SelectedBoxes
from hydet.structures import Instances, Losses
from hydet.structures.precision import at_least_float32

from .interfaces import BoxPredictions

__all__ = ["FastRCNNOutputLayers"]

BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")

# N images, R regions over all images, K classes, D numbers per box (4, or 5 for rotated boxes).


class SelectionOptions(TypedDict, total=False):
    """Settings of ``fast_rcnn_inference`` beyond its thresholds."""

    min_box_size: float
    class_agnostic_nms: bool


class FastRCNNOutputLayers(nn.Module):
    """Box predictor of Fast R-CNN: linear layers for the scores of K classes and background, and for box deltas.

    Args:
        input_shape: shape of the features of a region.
        box2box_transform: encodes boxes as deltas and decodes them.
        num_classes: K, without background.
        test_score_thresh: strict lower bound of the score of a detection.
        test_nms_thresh: IoU above which the lower-scoring one of two detections of a class is dropped.
        test_topk_per_image: maximum number of detections per image; negative for all.
        test_min_box_size: in pixels; boxes with a shorter side after clipping are dropped before the suppression.
        test_class_agnostic_nms: a detection also suppresses detections of other classes.
        cls_agnostic_bbox_reg: predict one box for all classes instead of one box per class.
        smooth_l1_beta: transition point of the smooth L1 loss, see ``hydet.layers.smooth_l1_loss``.
        box_reg_loss_type: ``smooth_l1`` on deltas; ``giou``, ``diou`` or ``ciou`` on boxes.
        loss_weight: one factor for both losses, or a factor for each of ``loss_cls`` and ``loss_box_reg``; 1 if
            missing.
        use_fed_loss: use the federated loss, which scores only the classes that occur in a step and some sampled ones.
            Requires ``use_sigmoid_ce``.
        use_sigmoid_ce: predict independent class probabilities instead of a softmax.
        get_fed_loss_cls_weights: returns the ``(K,)`` weights for sampling the classes that do not occur.
        fed_loss_num_classes: number of classes per step, including those that occur and background.

    Raises:
        ValueError: if arguments do not fit together.

    Source: Girshick 2015 (arXiv:1504.08083); federated loss, Zhou et al. 2021 (arXiv:2103.07461), section 3.1.
    """

    float32_layers = ("cls_score", "bbox_pred")  # reduced precision would move boxes and reorder scores
    fed_loss_cls_weights: Tensor  # (K,), only with use_fed_loss

    def __init__(
        self,
        *,
        input_shape: ShapeSpec,
        box2box_transform: Box2BoxTransform | Box2BoxTransformRotated | Box2BoxTransformLinear,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        test_min_box_size: float = 0.0,
        test_class_agnostic_nms: bool = False,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | Mapping[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        if box_reg_loss_type not in BOX_LOSSES:
            raise ValueError(
                f"box_reg_loss_type must be one of {', '.join(BOX_LOSSES)}, got {box_reg_loss_type!r}"
            )
        self.box_dim = 5 if isinstance(box2box_transform, Box2BoxTransformRotated) else 4
        if self.box_dim != 4 and box_reg_loss_type != "smooth_l1":
            raise ValueError(f"rotated boxes train with smooth_l1 only, got {box_reg_loss_type!r}")
        if use_fed_loss and not use_sigmoid_ce:
            raise ValueError("use_fed_loss needs use_sigmoid_ce=True")
        if use_fed_loss and get_fed_loss_cls_weights is None:
            raise ValueError("use_fed_loss needs get_fed_loss_cls_weights")

        size = _num_features(input_shape)
        self.cls_score = Linear(size, num_classes + 1)
        self.bbox_pred = Linear(size, (1 if cls_agnostic_bbox_reg else num_classes) * self.box_dim)
        # Small weights: training starts at nearly equal class scores and at boxes close to the proposals (Girshick 2015,
        # section 2.3).
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

        self.num_classes = num_classes
        self.box2box_transform = box2box_transform
        self.cls_agnostic_bbox_reg = cls_agnostic_bbox_reg
        self.smooth_l1_beta = smooth_l1_beta
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.test_min_box_size = test_min_box_size
        self.test_class_agnostic_nms = test_class_agnostic_nms
        self.box_reg_loss_type = box_reg_loss_type
        if not isinstance(loss_weight, Mapping):
            loss_weight = {"loss_cls": loss_weight, "loss_box_reg": loss_weight}
        self.loss_weight = dict(loss_weight)
        self.use_fed_loss = use_fed_loss
        self.use_sigmoid_ce = use_sigmoid_ce
        self.fed_loss_num_classes = fed_loss_num_classes
        if use_fed_loss and get_fed_loss_cls_weights is not None:
            weights = torch.as_tensor(get_fed_loss_cls_weights(), dtype=torch.float32)
            if weights.shape != (num_classes,):
                raise ValueError(
                    f"get_fed_loss_cls_weights must return shape ({num_classes},), got {tuple(weights.shape)}"
                )
            self.register_buffer("fed_loss_cls_weights", weights)

    @property
    def class_rows(self) -> dict[str, ClassRows]:
        """See ``hydet.modeling.class_rows``."""
        rows = {"cls_score": ClassRows(self.num_classes, has_background=True)}
        if not self.cls_agnostic_bbox_reg:
            rows["bbox_pred"] = ClassRows(self.num_classes, rows_per_class=self.box_dim)
        return rows

    def forward(self, x: Tensor) -> BoxPredictions:
        """Predict class scores and box deltas.

        Args:
            x: ``(R, ...)`` features; all but the first axis are flattened.

        Returns:
            ``(R, K + 1)`` logits with background last, and ``(R, K * D)`` or ``(R, D)`` deltas.
        """
        x = x.flatten(1)
        return BoxPredictions(self.cls_score(x), self.bbox_pred(x))

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> Losses:
        """Compute the losses of predictions against the ground truth of their proposals.

        Args:
            predictions: output of ``forward``.
            proposals: the R regions, per image, with ``proposal_boxes``, ``gt_classes`` (K is background) and, unless
                all regions of the image are background, ``gt_boxes``.

        Returns:
            ``loss_cls``, a mean over regions, and ``loss_box_reg``, a sum over foreground divided by the number of
            regions; each times its weight. Without regions both are 0 and connected to the predictions.
        """
        scores, deltas = predictions
        if len(proposals) == 0:
            return {"loss_cls": scores.sum() * 0.0, "loss_box_reg": deltas.sum() * 0.0}
        gt_classes = torch.cat([p.gt_classes for p in proposals])
        proposal_boxes = _cat_boxes(proposals)
        # An image without objects has no gt_boxes; its regions are background, whose boxes are not read.
        gt_boxes = torch.cat(
            [p.get("gt_boxes" if p.has("gt_boxes") else "proposal_boxes").tensor for p in proposals]
        )
        if self.use_sigmoid_ce:
            loss_cls = self.sigmoid_cross_entropy_loss(scores, gt_classes)
        else:
            loss_cls = cross_entropy(at_least_float32(scores), gt_classes, reduction="mean")
        losses = {
            "loss_cls": loss_cls,
            "loss_box_reg": self.box_reg_loss(proposal_boxes, gt_boxes, deltas, gt_classes),
        }
        return {name: value * self.loss_weight.get(name, 1.0) for name, value in losses.items()}

    def get_fed_loss_classes(
        self, gt_classes: Tensor, num_fed_loss_classes: int, num_classes: int, weight: Tensor
    ) -> Tensor:
        """Select the classes that one step scores.

        Args:
            gt_classes: ``(R,)``, including background.
            num_fed_loss_classes: number of classes to select. If more classes occur in ``gt_classes``, exactly those
                are selected.
            num_classes: K.
            weight: ``(K,)`` weights for sampling, without replacement, the classes that do not occur.

        Returns:
            ``(n,)`` class indices; they include K if background occurs. n is less than ``num_fed_loss_classes`` if
            too few classes have a positive weight.

        Raises:
            ValueError: if ``weight`` does not have shape ``(K,)``.
        """
        present: Tensor = torch.unique(gt_classes)
        background = weight.new_zeros(1).float()  # never sampled
        weights = torch.cat([weight.float(), background])  # (K + 1,)
        if weights.shape[0] != num_classes + 1:
            raise ValueError(f"weight must have shape ({num_classes},), got {tuple(weight.shape)}")
        weights[present] = 0
        num_sampled = min(num_fed_loss_classes - present.shape[0], int(weights.count_nonzero()))
        if num_sampled <= 0:
            return present
        return torch.cat([present, torch.multinomial(weights, num_sampled, replacement=False)])

    def sigmoid_cross_entropy_loss(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """Compute binary cross-entropies, summed over classes and averaged over regions.

        Args:
            pred_class_logits: ``(R, K + 1)``; the background column is ignored, as background is the absence of all
                classes.
            gt_classes: ``(R,)`` in [0, K].
        """
        logits = at_least_float32(pred_class_logits[:, :-1])
        if logits.shape[0] == 0:
            return logits.sum() * 0.0
        num_classes = logits.shape[1]
        targets = gt_classes[:, None] == torch.arange(num_classes, device=logits.device)  # (R, K)
        weight = None
        if self.use_fed_loss:
            scored_classes = self.get_fed_loss_classes(
                gt_classes, self.fed_loss_num_classes, num_classes, self.fed_loss_cls_weights
            )
            weight = logits.new_zeros(num_classes + 1).index_fill(0, scored_classes, 1.0)[:-1]
        loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits), weight=weight, reduction="sum")
        return loss / logits.shape[0]

    def box_reg_loss(
        self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor
    ) -> Tensor:
        """Compute the box regression loss, summed over foreground and divided by the number of all regions.

        Args:
            proposal_boxes: ``(R, D)``.
            gt_boxes: ``(R, D)``, read for foreground only.
            pred_deltas: ``(R, K * D)`` or ``(R, D)``.
            gt_classes: ``(R,)`` in [0, K], or -1 for ignored regions.
        """
        dim = proposal_boxes.shape[1]
        foreground = ((gt_classes >= 0) & (gt_classes < self.num_classes)).nonzero().squeeze(1)
        deltas = pred_deltas[foreground]
        if pred_deltas.shape[1] != dim:  # one box per class; only that of the ground-truth class trains
            rows = torch.arange(foreground.shape[0], device=deltas.device)
            deltas = deltas.unflatten(1, (self.num_classes, dim))[rows, gt_classes[foreground]]
        loss = box_regression_loss(
            proposal_boxes[foreground],
            at_least_float32(deltas),
            gt_boxes[foreground],
            self.box2box_transform,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        # The divisor is the number of sampled regions, not of foreground regions, so that each foreground region has the
        # same weight in every batch. Divided by their own number, a single foreground region would count as much as a
        # hundred of them do together in another batch.
        return loss / max(gt_classes.shape[0], 1)

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Select detections; see ``fast_rcnn_inference``.

        Args:
            predictions: output of ``forward``.
            proposals: the R regions, per image, with ``proposal_boxes``.

        Returns:
            The detections of each image, and the index of the proposal that each detection comes from.
        """
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
            **self.selection_options(),
        )

    def selection_options(self) -> SelectionOptions:
        """Return the settings of ``fast_rcnn_inference`` beyond its thresholds."""
        return {
            "min_box_size": self.test_min_box_size,
            "class_agnostic_nms": self.test_class_agnostic_nms,
        }

    def select(
        self, predictions: tuple[Tensor, Tensor], regions: PaddedRegions, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select detections without waiting for the device; no shape depends on the data.

        Args:
            predictions: output of ``forward`` for all N * R regions, padding included.
            regions: R regions of each of N images.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them.

        Returns:
            See ``select_class_boxes``.
        """
        return self.select_from(
            self.decode(predictions[1], regions.boxes),
            self.to_probabilities(predictions[0]).unflatten(0, regions.boxes.shape[:2]),
            regions.counts,
            image_sizes,
        )

    def select_from(
        self, boxes: Tensor, probabilities: Tensor, counts: Tensor, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select detections among decoded boxes.

        Args:
            boxes: ``(N, R, G, D)``, one box per class, or G = 1.
            probabilities: ``(N, R, K + 1)``, background last.
            counts: ``(N,)`` number of regions per image.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them.
        """
        return select_region_boxes(
            boxes,
            probabilities,
            counts,
            image_sizes,
            score_threshold=self.test_score_thresh,
            nms_threshold=self.test_nms_thresh,
            max_detections=self.test_topk_per_image,
            **self.selection_options(),
        )

    def decode(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode the boxes of all classes, not clipped.

        Args:
            deltas: ``(N * R, G * D)``, G is K or 1.
            boxes: ``(N, R, D)``.

        Returns:
            ``(N, R, G, D)``.
        """
        decoded = self.box2box_transform.apply_deltas(at_least_float32(deltas), boxes.flatten(0, 1))
        split: Tensor = decoded.unflatten(0, boxes.shape[:2]).unflatten(2, (-1, self.box_dim))
        return split

    def to_probabilities(self, scores: Tensor) -> Tensor:
        """Return the ``(R, K + 1)`` class probabilities of ``(R, K + 1)`` logits."""
        logits = at_least_float32(scores)
        return logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(dim=-1)

    def predict_boxes_for_gt_classes(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """Decode the boxes of the ground-truth classes.

        Args:
            predictions: output of ``forward``.
            proposals: the R regions, per image, with ``proposal_boxes`` and ``gt_classes``.

        Returns:
            Per image, ``(R_i, D)`` boxes, not clipped; background regions get the box of the last class.
        """
        if len(proposals) == 0:
            return []
        deltas = predictions[1]
        if deltas.shape[1] != self.box_dim:
            classes = torch.cat([p.gt_classes for p in proposals]).clamp(0, self.num_classes - 1)
            rows = torch.arange(deltas.shape[0], device=deltas.device)
            deltas = deltas.unflatten(1, (self.num_classes, self.box_dim))[rows, classes]
        return self._decode(deltas, proposals)

    def predict_boxes(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """Decode the boxes of all classes.

        Args:
            predictions: output of ``forward``.
            proposals: the R regions, per image, with ``proposal_boxes``.

        Returns:
            Per image, ``(R_i, K * D)`` or ``(R_i, D)`` boxes, not clipped.
        """
        return self._decode(predictions[1], proposals) if len(proposals) > 0 else []

    def predict_probs(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """Compute class probabilities.

        Args:
            predictions: output of ``forward``.
            proposals: the R regions, per image.

        Returns:
            Per image, ``(R_i, K + 1)``, background last.
        """
        return list(self.to_probabilities(predictions[0]).split([len(p) for p in proposals]))

    def _decode(self, deltas: Tensor, proposals: Sequence[Instances]) -> list[Tensor]:
        boxes = self.box2box_transform.apply_deltas(at_least_float32(deltas), _cat_boxes(proposals))
        return list(boxes.split([len(p) for p in proposals]))


def _cat_boxes(proposals: Sequence[Instances]) -> Tensor:
    return torch.cat([p.proposal_boxes.tensor for p in proposals])


def _num_features(shape: ShapeSpec) -> int:
    if shape.channels is None:
        raise ValueError(f"FastRCNNOutputLayers: input_shape needs channels, got {shape}")
    return shape.channels * (shape.height or 1) * (shape.width or 1)
