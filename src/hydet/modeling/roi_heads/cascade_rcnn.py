"""A cascade of box heads, each trained on the boxes that the previous one predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hydet.modeling.matcher import Matcher
from hydet.modeling.padded import PaddedDetections, PaddedRegions, to_detections, to_rois
from hydet.modeling.selection import fast_rcnn_inference
from hydet.modeling.selection.suppression import ImageSizes, clip_to_images
from hydet.structures import Boxes, Instances, Losses

from .fast_rcnn import FastRCNNOutputLayers
from .interfaces import BoxPredictions, BoxPredictor, Features, RegionPooler
from .region_calls import as_padded
from .standard_roi_heads import StandardROIHeads

__all__ = ["CascadeROIHeads"]


class CascadeROIHeads(StandardROIHeads):
    """Cascade R-CNN: refines boxes stage by stage, with a stricter matcher for each stage.

    The first stage trains on sampled proposals. A later stage trains on all boxes that the previous stage predicts:
    clipped to the image, detached, without empty boxes, and matched again. Detections have the boxes of the last stage
    and the mean score of all stages. Masks and keypoints train on the proposals of the first stage.

    Losses are named ``loss_cls_stage0``, ``loss_box_reg_stage0`` and so on.

    Args:
        box_in_features: names of the feature maps for boxes.
        box_pooler: pools regions from them; shared by all stages.
        box_heads: one head per stage.
        box_predictors: one predictor per stage; all but the last have ``cls_agnostic_bbox_reg``.
        proposal_matchers: one matcher per stage.
        average_logits: average the logits of the stages, as mmdet does, instead of their probabilities.
        **kwargs: arguments of ``StandardROIHeads``, without ``proposal_matcher`` and ``train_on_pred_boxes``.

    Raises:
        ValueError: if parts do not fit together.

    Source: Cai & Vasconcelos 2017 (arXiv:1712.00726).
    """

    # One entry per stage. Published state dicts use these two names for the lists.
    box_head: nn.ModuleList
    box_predictor: nn.ModuleList  # type: ignore[assignment]

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: RegionPooler,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[BoxPredictor],
        proposal_matchers: Sequence[Matcher],
        average_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        if "proposal_matcher" in kwargs:
            raise ValueError(
                "CascadeROIHeads takes proposal_matchers, one for each stage, instead of proposal_matcher"
            )
        if kwargs.get("train_on_pred_boxes"):
            raise ValueError(
                "CascadeROIHeads does not train on predicted boxes; leave out train_on_pred_boxes"
            )
        counts = len(box_heads), len(box_predictors), len(proposal_matchers)
        if counts[0] == 0 or len(set(counts)) != 1:
            raise ValueError(f"each stage needs a head, a predictor and a matcher, got {counts} of them")
        if not all(predictor.cls_agnostic_bbox_reg for predictor in box_predictors[:-1]):
            raise ValueError(
                "box_predictors before the last stage must predict one box per region: cls_agnostic_bbox_reg=True"
            )
        super().__init__(
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=cast(BoxPredictor, nn.ModuleList(cast(Sequence[nn.Module], box_predictors))),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.num_cascade_stages = len(box_heads)
        self.proposal_matchers = list(proposal_matchers)
        self.average_logits = average_logits

    def _box_predictors(self) -> Sequence[BoxPredictor]:
        return [cast(BoxPredictor, predictor) for predictor in self.box_predictor]

    def _box_losses(
        self, features: Features, proposals: list[Instances], targets: Sequence[Instances]
    ) -> tuple[Losses, list[Instances]]:
        losses: Losses = {}
        stage_proposals = proposals
        for stage, predictor in enumerate(self._box_predictors()):
            predictions = self._run_stage(features, stage_proposals, stage, scale_gradient=True)
            stage_losses = predictor.losses(predictions, stage_proposals)
            losses.update({f"{name}_stage{stage}": value for name, value in stage_losses.items()})
            if stage + 1 < self.num_cascade_stages:
                refined = self._refine(predictor, predictions, stage_proposals)
                # A box outside the image is empty after clipping, so it has no features to learn from.
                refined = [p[p.proposal_boxes.nonempty().nonzero().squeeze(1)] for p in refined]
                stage_proposals = self._match_and_label_boxes(refined, stage + 1, targets)
        return losses, proposals

    def _detect(self, features: Features, proposals: Sequence[Instances]) -> list[Instances]:
        stage_logits, stage_scores = [], []
        for stage, predictor in enumerate(self._box_predictors()):
            predictions = self._run_stage(features, proposals, stage)
            if self.average_logits:
                stage_logits.append(predictions[0])
            else:
                stage_scores.append(predictor.predict_probs(predictions, proposals))
            if stage + 1 < self.num_cascade_stages:
                # Empty boxes stay here, so that the rows of all stages belong to the same region.
                proposals = self._refine(predictor, predictions, proposals)
        # The classifiers of all stages form an ensemble. The box regressors do not: each one starts from the boxes of the
        # previous stage.
        if self.average_logits:
            mean_logits = torch.stack(stage_logits).mean(dim=0)
            mean_scores = predictor.predict_probs((mean_logits, predictions[1]), proposals)
        else:
            mean_scores = [torch.stack(scores).mean(dim=0) for scores in zip(*stage_scores, strict=True)]
        detections, _ = fast_rcnn_inference(
            predictor.predict_boxes(predictions, proposals),
            mean_scores,
            [p.image_size for p in proposals],
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
            **(predictor.selection_options() if isinstance(predictor, FastRCNNOutputLayers) else {}),
        )
        return detections

    def detect_padded(
        self, features: Features, regions: PaddedRegions, image_sizes: ImageSizes
    ) -> PaddedDetections:
        """Detect boxes without waiting for the device; see ``ROIHeads.detect_padded``."""
        maps = [features[name] for name in self.box_in_features]
        boxes, stage_scores = regions.boxes, []
        for stage, head in enumerate(self.box_head):
            predictor = as_padded(self._box_predictors()[stage])
            scores, deltas = self._box_predictors()[stage](head(self.box_pooler.pool(maps, to_rois(boxes))))
            stage_scores.append(scores if self.average_logits else predictor.to_probabilities(scores))
            decoded = predictor.decode(deltas, boxes)  # (N, R, G, D)
            if stage + 1 < self.num_cascade_stages:
                boxes = clip_to_images(decoded[:, :, 0], image_sizes)
        mean = torch.stack(stage_scores).mean(dim=0)
        if self.average_logits:
            mean = predictor.to_probabilities(mean)
        mean = mean.unflatten(0, regions.boxes.shape[:2])
        return to_detections(predictor.select_from(decoded, mean, regions.counts, image_sizes))

    def _run_stage(
        self, features: Features, proposals: Sequence[Instances], stage: int, *, scale_gradient: bool = False
    ) -> BoxPredictions:
        pooled = self.box_pooler(
            [features[name] for name in self.box_in_features], [p.proposal_boxes for p in proposals]
        )
        if scale_gradient:
            # Every stage sends a gradient into the shared features. Their mean, instead of their sum, keeps the gradient of
            # the backbone as large as with a single box head. The original code averages the losses of the stages and
            # scales up the gradients of the heads, which is equivalent.
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        return self._box_predictors()[stage](self.box_head[stage](pooled))

    @staticmethod
    @torch.no_grad()
    def _refine(
        predictor: BoxPredictor, predictions: BoxPredictions, proposals: Sequence[Instances]
    ) -> list[Instances]:
        """Return the predicted boxes as proposals, clipped to their images and detached."""
        refined = []
        boxes = predictor.predict_boxes(predictions, proposals)
        for proposals_i, boxes_i in zip(proposals, boxes, strict=True):
            clipped = Boxes(boxes_i)
            clipped.clip(proposals_i.image_size)
            refined.append(Instances(proposals_i.image_size, proposal_boxes=clipped))
        return refined

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: Sequence[Instances], stage: int, targets: Sequence[Instances]
    ) -> list[Instances]:
        """Label all proposals of a later stage; drop those that its matcher ignores."""
        matcher = self.proposal_matchers[stage]
        labeled = []
        for proposals_i, targets_i in zip(proposals, targets, strict=True):
            classes, matches = self._label(proposals_i, targets_i, matcher)
            proposals_i.gt_classes = classes
            if len(targets_i) > 0:
                proposals_i.gt_boxes = targets_i.gt_boxes[matches]
            if -1 in matcher.labels:
                proposals_i = proposals_i[(classes != -1).nonzero().squeeze(1)]
            labeled.append(proposals_i)
        return labeled


class _ScaleGradient(torch.autograd.Function):
    """Identity in the forward pass; multiplies the gradient by ``scale`` in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None
