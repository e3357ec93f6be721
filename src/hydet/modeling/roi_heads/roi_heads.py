"""What all region heads share: proposals get labels, and a sample of them is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.matcher import Matcher
from hydet.modeling.proposal_generators import add_ground_truth_to_proposals
from hydet.modeling.sampling import subsample_labels
from hydet.structures import BitMasks, Boxes, ImageList, Instances, pairwise_iou

from .sampled_masks import SampledBitMasks

__all__ = ["ROIHeads"]


class ROIHeads(nn.Module):
    """Base of modules that do all per-region work of an R-CNN.

    Losses are computed exactly when targets are given, predictions when they are not; the mode (``train()`` or
    ``eval()``) does not matter. What comes in is never changed.

    Args:
        num_classes: K, number of foreground classes; class K is background.
        batch_size_per_image: proposals sampled for training, per image.
        positive_fraction: largest share of foreground among them, in [0, 1].
        proposal_matcher: labels proposals by their IoU with the ground truth.
        proposal_append_gt: whether the ground-truth boxes count as proposals too.

    Raises:
        ValueError: if a number is out of range.

    Source: Girshick 2015 (arXiv:1504.08083), section 2.3.
    """

    pairwise_iou: Callable[[Boxes, Boxes], Tensor] = staticmethod(pairwise_iou)

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
    def tasks(self) -> tuple[str, ...]:
        """What these heads predict; see ``MetaArchitecture.tasks``."""
        return ("box",)

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Train or detect.

        Args:
            images: the batch of N images.
            features: feature maps by name, ``(N, C, H, W)``.
            proposals: per image, with ``proposal_boxes`` and ``objectness_logits``.
            targets: per image, with ``gt_boxes``, ``gt_classes`` in [0, K), and what the heads need of ``gt_masks``
                and ``gt_keypoints``.

        Returns:
            With targets, the sampled proposals and the losses; without, the detections and ``{}``. Detections have
            ``pred_boxes`` in pixels of the input, ``scores``, ``pred_classes``, and what the heads add.
        """
        raise NotImplementedError

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Match proposals with the ground truth, and draw the ones to train on.

        Args:
            proposals: see ``forward``.
            targets: likewise.

        Returns:
            Per image, at most ``batch_size_per_image`` proposals, foreground first. They keep their fields and gain
            ``gt_classes`` (K is background) and every other ``gt_*`` field of the object they overlap best, which
            means nothing for background. An image without objects only adds ``gt_classes``.

        Raises:
            ValueError: if there are not as many targets as proposals.
        """
        if len(proposals) != len(targets):
            raise ValueError(f"proposals of {len(proposals)} images, but targets of {len(targets)}")
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        pairs = zip(proposals, targets, strict=True)
        return [self._label_and_sample(found, truth) for found, truth in pairs]

    def _label_and_sample(self, proposals: Instances, targets: Instances) -> Instances:
        classes, matches = self._label(proposals, targets, self.proposal_matcher)
        drawn = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, bg_label=self.num_classes
        )
        index = torch.cat(drawn)
        sampled = proposals[index]
        sampled.gt_classes = classes[index]
        return self._annotated(sampled, targets, matches[index])

    def _label(self, proposals: Instances, targets: Instances, matcher: Matcher) -> tuple[Tensor, Tensor]:
        """``(R,)`` class of each proposal, with K for background and -1 for ignored, and ``(R,)`` matched object."""
        matches, labels = matcher(self.pairwise_iou(targets.gt_boxes, proposals.proposal_boxes))
        if len(targets) == 0:
            return torch.full_like(matches, self.num_classes), matches
        classes = targets.gt_classes[matches]
        classes = torch.where(labels == 0, self.num_classes, classes)
        return torch.where(labels == -1, -1, classes), matches

    @staticmethod
    def _annotated(proposals: Instances, targets: Instances, matches: Tensor) -> Instances:
        """Add those ``gt_*`` fields of the matched objects that ``proposals`` have not yet."""
        if len(targets) > 0:
            for name, value in targets.get_fields().items():
                if name.startswith("gt_") and not proposals.has(name):
                    proposals.set(name, _picked(value, matches))
        return proposals


def _picked(value: Any, index: Tensor) -> Any:
    if type(value) is BitMasks:
        return SampledBitMasks(value, index)
    if isinstance(value, list | tuple):
        return [value[i] for i in index.tolist()]
    return value[index]
