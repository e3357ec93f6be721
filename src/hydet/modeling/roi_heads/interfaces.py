"""Interfaces between ROI heads and their parts: poolers, box predictors, mask heads and keypoint heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from hydet.modeling.padded import PaddedRegions
from hydet.modeling.selection.suppression import ImageSizes, SelectedBoxes
from hydet.structures import Boxes, Instances, Losses

__all__ = [
    "BoxPredictions",
    "BoxPredictor",
    "Features",
    "PaddedBoxPredictor",
    "RegionHead",
    "RegionPooler",
]

# Feature maps by name, (N, C_l, H_l, W_l) each.
Features = Mapping[str, Tensor]

# N images, R regions over all images, K classes, D numbers per box (4, or 5 for rotated boxes).


class BoxPredictions(NamedTuple):
    """Outputs of a box predictor for R regions.

    Attributes:
        scores: ``(R, K + 1)`` class logits, background last.
        deltas: ``(R, K * D)`` box deltas per class, or ``(R, D)`` shared by all classes.
    """

    scores: Tensor
    deltas: Tensor


class RegionPooler(Protocol):
    """Pools regions from feature maps to a fixed size, such as ``ROIPooler``."""

    def __call__(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Return ``(R, C, H, W)`` features of all boxes, image by image, from one feature map per level."""
        ...

    def pool(self, x: list[Tensor], rois: Tensor) -> Tensor:
        """Return ``(R, C, H, W)`` features of ``(R, 1 + D)`` regions, which start with the index of their image."""
        ...


class BoxPredictor(Protocol):
    """Predicts classes and boxes of regions, such as ``FastRCNNOutputLayers``.

    Attributes:
        num_classes: K, without background.
        cls_agnostic_bbox_reg: True if all classes share one box per region.
        test_score_thresh: strict lower bound of the score of a detection.
        test_nms_thresh: IoU above which the lower-scoring one of two detections of a class is dropped.
        test_topk_per_image: maximum number of detections per image; negative for all.
    """

    num_classes: int
    cls_agnostic_bbox_reg: bool
    test_score_thresh: float
    test_nms_thresh: float
    test_topk_per_image: int

    def __call__(self, x: Tensor) -> BoxPredictions:
        """Predict from the features of R regions, ``(R, ...)``."""
        ...

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> Losses:
        """Compute losses against the ground truth of ``proposals``."""
        ...

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Return the detections of each image, and the index of the proposal that each detection comes from."""
        ...

    def predict_boxes(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """Return ``(R_i, K * D)`` or ``(R_i, D)`` boxes per image, not clipped."""
        ...

    def predict_boxes_for_gt_classes(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """Return ``(R_i, D)`` boxes of the ground-truth classes per image, not clipped."""
        ...

    def predict_probs(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """Return ``(R_i, K + 1)`` class probabilities per image, background last."""
        ...


@runtime_checkable
class PaddedBoxPredictor(Protocol):
    """A box predictor that works on padded batches, such as ``FastRCNNOutputLayers``.

    The methods do not wait for the device, and no shape depends on the data.
    """

    def select(
        self, predictions: tuple[Tensor, Tensor], regions: PaddedRegions, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select detections from the predictions for all regions, padding included."""
        ...

    def select_from(
        self, boxes: Tensor, probabilities: Tensor, counts: Tensor, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select detections among ``(N, R, G, D)`` boxes with ``(N, R, K + 1)`` class probabilities."""
        ...

    def decode(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Return ``(N, R, G, D)`` boxes for ``(N * R, G * D)`` deltas of ``(N, R, D)`` regions."""
        ...

    def to_probabilities(self, scores: Tensor) -> Tensor:
        """Return the class probabilities of ``(R, K + 1)`` logits."""
        ...


class RegionHead(Protocol):
    """Predicts masks or keypoints of regions, such as ``BaseMaskRCNNHead`` or ``BaseKeypointRCNNHead``."""

    def __call__(self, x: Tensor | Features, instances: Sequence[Instances]) -> Losses | list[Instances]:
        """Compute losses or predictions.

        Args:
            x: ``(R, C, H, W)`` pooled features; the feature maps by name if the head has no pooler.
            instances: the R regions, per image: sampled proposals with ground truth, or detections.

        Returns:
            Losses by name if ``instances`` carry ground truth; otherwise new ``Instances`` with predictions.
        """
        ...
