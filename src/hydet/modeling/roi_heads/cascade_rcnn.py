"""Box heads in a row, each trained on what the one before makes of the proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.matcher import Matcher
from hydet.modeling.poolers import ROIPooler
from hydet.structures import Boxes, Instances

from .detections import fast_rcnn_inference
from .standard_roi_heads import StandardROIHeads

__all__ = ["CascadeROIHeads"]

Features = Mapping[str, Tensor]
Predictions = tuple[Tensor, Tensor]


class CascadeROIHeads(StandardROIHeads):
    """Refines boxes stage by stage, with stricter matching each time.

    The first stage trains on sampled proposals. Later ones train on all boxes that the stage before predicts, clipped
    to the image, without gradient and without empty ones, matched anew. What flows back into the features is divided
    by the number of stages. Detections have the boxes of the last stage and the mean score of all stages. Masks and
    keypoints learn from the proposals of the first stage.

    Args:
        box_in_features: see ``StandardROIHeads``, as ``box_pooler``.
        box_pooler: shared by all stages.
        box_heads: one for each stage.
        box_predictors: likewise; all but the last with ``cls_agnostic_bbox_reg``.
        proposal_matchers: likewise.
        **kwargs: those of ``StandardROIHeads``, without ``proposal_matcher`` and ``train_on_pred_boxes``.

    Raises:
        ValueError: if parts do not fit together.

    Losses are called ``loss_cls_stage0``, ``loss_box_reg_stage0`` and so on.

    Source: Cai & Vasconcelos 2017 (arXiv:1712.00726).
    """

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[nn.Module],
        proposal_matchers: Sequence[Matcher],
        **kwargs: Any,
    ) -> None:
        if "proposal_matcher" in kwargs:
            raise ValueError(
                "CascadeROIHeads takes proposal_matchers, one for each stage, not proposal_matcher"
            )
        if kwargs.get("train_on_pred_boxes"):
            raise ValueError(
                "CascadeROIHeads does not train on predicted boxes; leave out train_on_pred_boxes"
            )
        counts = len(box_heads), len(box_predictors), len(proposal_matchers)
        if counts[0] == 0 or len(set(counts)) != 1:
            raise ValueError(f"each stage needs a head, a predictor and a matcher, got {counts} of them")
        if not all(getattr(predictor, "cls_agnostic_bbox_reg", True) for predictor in box_predictors[:-1]):
            raise ValueError(
                "box_predictors before the last stage must give one box a region: cls_agnostic_bbox_reg=True"
            )
        super().__init__(
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.num_cascade_stages = len(box_heads)
        self.proposal_matchers = list(proposal_matchers)

    def _box_losses(
        self, features: Features, proposals: list[Instances], targets: Sequence[Instances]
    ) -> tuple[dict[str, Tensor], list[Instances]]:
        losses: dict[str, Tensor] = {}
        stage_proposals = proposals
        for stage in range(self.num_cascade_stages):
            predictor = self.box_predictor[stage]
            predictions = self._run_stage(features, stage_proposals, stage, scale_gradient=True)
            found = predictor.losses(predictions, stage_proposals)
            losses.update({f"{name}_stage{stage}": value for name, value in found.items()})
            if stage + 1 < self.num_cascade_stages:
                refined = self._refined(predictor, predictions, stage_proposals)
                refined = [p[p.proposal_boxes.nonempty().nonzero().squeeze(1)] for p in refined]
                stage_proposals = self._match_and_label_boxes(refined, stage + 1, targets)
        return losses, proposals

    def _detect(self, features: Features, proposals: Sequence[Instances]) -> list[Instances]:
        scores = []
        for stage in range(self.num_cascade_stages):
            predictor = self.box_predictor[stage]
            predictions = self._run_stage(features, proposals, stage)
            scores.append(predictor.predict_probs(predictions, proposals))
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refined(predictor, predictions, proposals)
        mean_scores = [torch.stack(of_image).mean(dim=0) for of_image in zip(*scores, strict=True)]
        found, _ = fast_rcnn_inference(
            predictor.predict_boxes(predictions, proposals),
            mean_scores,
            [p.image_size for p in proposals],
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return found

    def _run_stage(
        self, features: Features, proposals: Sequence[Instances], stage: int, *, scale_gradient: bool = False
    ) -> Predictions:
        pooled = self.box_pooler(
            [features[name] for name in self.box_in_features], [p.proposal_boxes for p in proposals]
        )
        if scale_gradient:
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        return self.box_predictor[stage](self.box_head[stage](pooled))

    @staticmethod
    @torch.no_grad()
    def _refined(
        predictor: nn.Module, predictions: Predictions, proposals: Sequence[Instances]
    ) -> list[Instances]:
        """The predicted boxes as proposals, clipped to their images and without gradient."""
        refined = []
        for before, boxes in zip(proposals, predictor.predict_boxes(predictions, proposals), strict=True):
            clipped = Boxes(boxes)
            clipped.clip(before.image_size)
            refined.append(Instances(before.image_size, proposal_boxes=clipped))
        return refined

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: Sequence[Instances], stage: int, targets: Sequence[Instances]
    ) -> list[Instances]:
        """Label all proposals for a later stage; those that its matcher ignores are left out."""
        labelled = []
        for found, truth in zip(proposals, targets, strict=True):
            classes, matches = self._label(found, truth, self.proposal_matchers[stage])
            found.gt_classes = classes
            if len(truth) > 0:
                found.gt_boxes = truth.gt_boxes[matches]
            if -1 in self.proposal_matchers[stage].labels:
                found = found[(classes != -1).nonzero().squeeze(1)]
            labelled.append(found)
        return labelled


class _ScaleGradient(torch.autograd.Function):
    """The identity, with another gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.scale, None
