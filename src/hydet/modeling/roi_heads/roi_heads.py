"""Base class of ROI heads: labels proposals and samples them for training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.matcher import Matcher, match_boxes
from hydet.modeling.padded import PaddedDetections, PaddedRegions, RegionLogits
from hydet.modeling.proposal_generators import add_ground_truth_to_proposals
from hydet.modeling.protocols import DetectionLimits, Task
from hydet.modeling.sampling import subsample_labels
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import BitMasks, ImageList, Instances, Losses, pairwise_iou

from .interfaces import Features
from .sampled_masks import SampledBitMasks

__all__ = ["ROIHeads"]


class ROIHeads(nn.Module, ABC):
    """Base class of modules that do all per-region computation of an R-CNN.

    A subclass implements ``forward``. Losses are computed if targets are given, and detections if they are not; the mode
    (``train()`` or ``eval()``) does not matter. Inputs are never changed.

    Args:
        num_classes: K, number of foreground classes; class K is background.
        batch_size_per_image: number of proposals sampled per image for training.
        positive_fraction: maximum fraction of foreground among the sampled proposals, in [0, 1].
        proposal_matcher: labels proposals by their IoU with the ground truth.
        proposal_append_gt: add the ground-truth boxes to the proposals in training.

    Raises:
        ValueError: if a number is out of range.

    Source: Girshick 2015 (arXiv:1504.08083), section 2.3.
    """

    # IoU of the kind of boxes that the heads work on: (M, D) ground truth, (R, D) proposals -> (M, R).
    pairwise_iou: Callable[[Any, Any], Tensor] = staticmethod(pairwise_iou)

    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        if batch_size_per_image < 1:
            raise ValueError(f"batch_size_per_image must be positive, got {batch_size_per_image}")
        if not 0 <= positive_fraction <= 1:
            raise ValueError(f"positive_fraction must lie in [0, 1], got {positive_fraction}")
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that the heads predict, most important first."""
        return ("box",)

    @property
    def detection_limits(self) -> DetectionLimits:
        """NMS threshold and maximum number of detections per image."""
        return DetectionLimits()

    @abstractmethod
    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Compute losses or detections.

        Args:
            images: the batch of N images.
            features: feature maps by name, ``(N, C, H, W)`` each.
            proposals: per image, with ``proposal_boxes`` and ``objectness_logits``.
            targets: per image, with ``gt_boxes``, ``gt_classes`` in [0, K), and ``gt_masks`` and ``gt_keypoints`` if
                the heads learn from them.

        Returns:
            With targets, the sampled proposals and the losses. Without, the detections and no losses. Detections have
            ``pred_boxes`` in pixels of the input, ``scores``, ``pred_classes``, and the fields that the heads add.
        """

    def detect_padded(
        self, features: Features, regions: PaddedRegions, image_sizes: ImageSizes
    ) -> PaddedDetections:
        """Detect boxes in a padded batch, without waiting for the device; no shape depends on the data.

        Args:
            features: feature maps by name, ``(N, C, H, W)`` each.
            regions: proposals of N images.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them.

        Raises:
            TypeError: if this class does not implement it.
        """
        raise TypeError(
            f"{type(self).__name__} has no tensor core: it needs detect_padded and predict_padded"
        )

    def predict_padded(self, features: Features, detections: PaddedDetections) -> RegionLogits:
        """Predict masks and keypoints of detections; those of padding have no meaning.

        Args:
            features: feature maps by name, ``(N, C, H, W)`` each.
            detections: of N images, from ``detect_padded``.
        """
        return RegionLogits()

    def detect_boxes(
        self, images: ImageList, features: Features, proposals: Sequence[Instances]
    ) -> list[Instances]:
        """Detect boxes only.

        Test-time augmentation calls it before it merges boxes, since the masks of dropped boxes would be wasted. This
        implementation calls ``forward``; subclasses that also predict masks or keypoints override it.

        Args:
            images: the batch of N images.
            features: feature maps by name, ``(N, C, H, W)`` each.
            proposals: per image, with ``proposal_boxes``.

        Returns:
            Per image, ``pred_boxes`` in pixels of the input, ``scores`` and ``pred_classes``.
        """
        detections, _ = self.forward(images, features, proposals)
        return detections

    def forward_with_given_boxes(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        """Predict masks and keypoints for known boxes. Heads that predict only boxes return ``instances`` as a list."""
        return list(instances)

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Match proposals to the ground truth and sample them for training.

        Args:
            proposals: per image, with ``proposal_boxes`` and ``objectness_logits``.
            targets: per image, with ``gt_boxes``, ``gt_classes`` and any other ``gt_*`` fields.

        Returns:
            Per image, at most ``batch_size_per_image`` proposals, foreground first. They keep their fields and gain
            ``gt_classes`` (K is background) and every other ``gt_*`` field of the object with the highest IoU; for
            background those values are meaningless. Proposals of an image without objects gain ``gt_classes`` only.

        Raises:
            ValueError: if ``proposals`` and ``targets`` differ in length.
        """
        if len(proposals) != len(targets):
            raise ValueError(f"got proposals of {len(proposals)} images, but targets of {len(targets)}")
        if self.proposal_append_gt:
            # Early in training no proposal may overlap an object enough to be foreground. The ground-truth boxes give
            # the heads positive examples from the first step on.
            proposals = add_ground_truth_to_proposals(targets, proposals)
        return [
            self._label_and_sample(proposals_i, targets_i)
            for proposals_i, targets_i in zip(proposals, targets, strict=True)
        ]

    def _label_and_sample(self, proposals: Instances, targets: Instances) -> Instances:
        classes, matches = self._label(proposals, targets, self.proposal_matcher)
        foreground, background = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, bg_label=self.num_classes
        )
        index = torch.cat([foreground, background])
        sampled = proposals[index]
        sampled.gt_classes = classes[index]
        return self._add_ground_truth(sampled, targets, matches[index])

    def _label(self, proposals: Instances, targets: Instances, matcher: Matcher) -> tuple[Tensor, Tensor]:
        """Match the R proposals of one image.

        Returns:
            ``(R,)`` classes, K for background and -1 for ignored, and ``(R,)`` indices of the matched objects.
        """
        matches, labels = match_boxes(
            matcher, targets.gt_boxes, proposals.proposal_boxes, pairwise_iou=self.pairwise_iou
        )
        if len(targets) == 0:
            return torch.full_like(matches, self.num_classes), matches
        classes = targets.gt_classes[matches]
        classes = torch.where(labels == 0, self.num_classes, classes)
        return torch.where(labels == -1, -1, classes), matches

    @staticmethod
    def _add_ground_truth(proposals: Instances, targets: Instances, matches: Tensor) -> Instances:
        """Add the ``gt_*`` fields of the matched objects that ``proposals`` do not have yet."""
        if len(targets) > 0:
            for name, value in targets.get_fields().items():
                if name.startswith("gt_") and not proposals.has(name):
                    proposals.set(name, _select(value, matches))
        return proposals


def _select(field: Any, index: Tensor) -> Any:
    """Return ``field[index]`` for a field of any type."""
    if type(field) is BitMasks:
        return SampledBitMasks(field, index)
    if isinstance(field, list | tuple):
        return [field[i] for i in index.tolist()]
    return field[index]
