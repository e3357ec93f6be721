"""Region heads that share nothing: each pools for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.poolers import ROIPooler
from hydet.structures import Boxes, ImageList, Instances

from .proposal_selection import select_foreground_proposals, select_proposals_with_visible_keypoints
from .roi_heads import ROIHeads

__all__ = ["StandardROIHeads"]

Features = Mapping[str, Tensor]


class StandardROIHeads(ROIHeads):
    """Boxes, and for the boxes found perhaps masks and keypoints, each by a pooler and a head of its own.

    A subclass that does one of them differently overrides ``_box_losses`` and ``_detect``, ``_mask_losses`` and
    ``_predict_masks``, or ``_keypoint_losses`` and ``_predict_keypoints``.

    Args:
        box_in_features: names of the feature maps for boxes.
        box_pooler: pools them.
        box_head: from pooled features to what ``box_predictor`` reads.
        box_predictor: such as ``FastRCNNOutputLayers``.
        mask_in_features: names of the feature maps for masks; ``None`` without masks.
        mask_pooler: pools them; ``None`` if the head takes the feature maps themselves, by name.
        mask_head: such as ``MaskRCNNConvUpsampleHead``.
        keypoint_in_features: as for masks.
        keypoint_pooler: likewise.
        keypoint_head: such as ``KRCNNConvDeconvUpsampleHead``.
        train_on_pred_boxes: masks and keypoints learn from the predicted boxes of the true classes instead of from
            the proposals.
        **kwargs: those of ``ROIHeads``.

    Raises:
        ValueError: if parts do not fit together.

    Source: He et al. 2017 (arXiv:1703.06870).
    """

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: Sequence[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        for part, names, head in (
            ("mask", mask_in_features, mask_head),
            ("keypoint", keypoint_in_features, keypoint_head),
        ):
            if (names is None) != (head is None):
                raise ValueError(f"{part}_in_features and {part}_head go together, got only one of them")
        self.mask_on = mask_in_features is not None
        if mask_in_features is not None:
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head
        self.keypoint_on = keypoint_in_features is not None
        if keypoint_in_features is not None:
            self.keypoint_in_features = list(keypoint_in_features)
            self.keypoint_pooler = keypoint_pooler
            self.keypoint_head = keypoint_head
        self.train_on_pred_boxes = train_on_pred_boxes
        self._check_num_classes()

    def _check_num_classes(self) -> None:
        predictors = (
            self.box_predictor if isinstance(self.box_predictor, nn.ModuleList) else [self.box_predictor]
        )
        for predictor in predictors:
            if getattr(predictor, "num_classes", self.num_classes) != self.num_classes:
                raise ValueError(
                    f"num_classes is {self.num_classes}, but box_predictor has {predictor.num_classes} classes"
                )
        of_masks = getattr(self.mask_head, "num_classes", 1) if self.mask_on else 1
        if of_masks not in (1, self.num_classes):
            raise ValueError(f"num_classes is {self.num_classes}, but mask_head has {of_masks} classes")

    @property
    def tasks(self) -> tuple[str, ...]:
        switches = {"box": True, "mask": self.mask_on, "keypoints": self.keypoint_on}
        return tuple(task for task, on in switches.items() if on)

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        if targets is None:
            return self.forward_with_given_boxes(features, self._detect(features, proposals)), {}
        sampled = self.label_and_sample_proposals(proposals, targets)
        losses, sampled = self._box_losses(features, sampled, targets)
        if self.mask_on:
            losses.update(self._mask_losses(features, sampled))
        if self.keypoint_on:
            losses.update(self._keypoint_losses(features, sampled))
        return sampled, losses

    def forward_with_given_boxes(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        """Predict masks and keypoints for boxes that are known.

        Args:
            features: see ``forward``.
            instances: per image, with ``pred_boxes`` and ``pred_classes``.

        Returns:
            New ``Instances`` in the same order, with ``pred_masks`` and ``pred_keypoints`` as far as there are heads.

        Raises:
            ValueError: if a field is missing.
        """
        check_known(instances)
        found = list(instances)
        if self.mask_on:
            found = self._predict_masks(features, found)
        if self.keypoint_on:
            found = self._predict_keypoints(features, found)
        return found

    def _box_losses(
        self, features: Features, proposals: list[Instances], targets: Sequence[Instances]
    ) -> tuple[dict[str, Tensor], list[Instances]]:
        """Losses of sampled proposals, and the proposals that the other heads learn from."""
        predictions = self._predict(features, proposals)
        losses = self.box_predictor.losses(predictions, proposals)
        if self.train_on_pred_boxes:
            proposals = self._moved(predictions, proposals)
        return losses, proposals

    @torch.no_grad()
    def _moved(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> list[Instances]:
        boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
        moved = [copy(p) for p in proposals]
        for one, own in zip(moved, boxes, strict=True):
            one.proposal_boxes = Boxes(own)
        return moved

    def _detect(self, features: Features, proposals: Sequence[Instances]) -> list[Instances]:
        """Boxes, classes and scores."""
        return self.box_predictor.inference(self._predict(features, proposals), proposals)[0]

    def _predict(self, features: Features, proposals: Sequence[Instances]) -> tuple[Tensor, Tensor]:
        pooled = self.box_pooler(
            [features[name] for name in self.box_in_features], [p.proposal_boxes for p in proposals]
        )
        return self.box_predictor(self.box_head(pooled))

    def _mask_losses(self, features: Features, proposals: Sequence[Instances]) -> dict[str, Tensor]:
        """Mask losses of sampled proposals."""
        chosen, _ = select_foreground_proposals(proposals, self.num_classes)
        x = _pooled(features, self.mask_in_features, self.mask_pooler, [p.proposal_boxes for p in chosen])
        return self.mask_head(x, chosen)

    def _predict_masks(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        x = _pooled(features, self.mask_in_features, self.mask_pooler, [p.pred_boxes for p in instances])
        return self.mask_head(x, instances)

    def _keypoint_losses(self, features: Features, proposals: Sequence[Instances]) -> dict[str, Tensor]:
        """Keypoint losses of sampled proposals."""
        chosen, _ = select_foreground_proposals(proposals, self.num_classes)
        chosen = select_proposals_with_visible_keypoints(chosen)
        boxes = [p.proposal_boxes for p in chosen]
        x = _pooled(features, self.keypoint_in_features, self.keypoint_pooler, boxes)
        return self.keypoint_head(x, chosen)

    def _predict_keypoints(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        boxes = [p.pred_boxes for p in instances]
        x = _pooled(features, self.keypoint_in_features, self.keypoint_pooler, boxes)
        return self.keypoint_head(x, instances)


def _pooled(
    features: Features, names: Sequence[str], pooler: ROIPooler | None, boxes: Sequence[Boxes]
) -> Tensor | dict[str, Tensor]:
    """What a head reads: pooled features, or the feature maps themselves if it has no pooler."""
    if pooler is None:
        return {name: features[name] for name in names}
    return pooler([features[name] for name in names], boxes)


def check_known(instances: Sequence[Instances]) -> None:
    """Raise a ``ValueError`` unless boxes and classes are there."""
    for i, found in enumerate(instances):
        missing = [name for name in ("pred_boxes", "pred_classes") if not found.has(name)]
        if missing:
            raise ValueError(f"given boxes need pred_boxes and pred_classes; image {i} lacks {missing}")
