"""ROI heads that share the last residual stage of a ResNet (C4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.padded import PaddedDetections, PaddedRegions, RegionLogits, to_detections, to_rois
from hydet.modeling.protocols import DetectionLimits, Task
from hydet.modeling.selection import select_foreground_proposals
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import Boxes, ImageList, Instances, Losses

from .checks import check_box_predictor, check_given_boxes, check_mask_head
from .interfaces import BoxPredictor, Features, RegionHead, RegionPooler
from .region_calls import as_padded, compute_region_losses, predict_mask_logits, predict_regions
from .roi_heads import ROIHeads

__all__ = ["Res5ROIHeads"]


class Res5ROIHeads(ROIHeads):
    """ROI heads of the C4 architecture: apply a residual stage to pooled regions, and predict boxes and masks from it.

    Args:
        in_features: names of the feature maps to pool from, usually one.
        pooler: pools regions from them.
        res5: the residual stage, as a module or its blocks.
        box_predictor: such as ``FastRCNNOutputLayers``; reads the spatial mean of the stage's output.
        mask_head: such as ``MaskRCNNConvUpsampleHead``; reads the stage's output. ``None`` for boxes only.
        **kwargs: arguments of ``ROIHeads``.

    Raises:
        ValueError: if parts do not fit together.

    Source: Ren et al. 2015 (arXiv:1506.01497), as in He et al. 2015 (arXiv:1512.03385), appendix A; with masks, He et
    al. 2017 (arXiv:1703.06870), figure 4 (left).
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        pooler: RegionPooler,
        res5: nn.Module | Sequence[nn.Module],
        box_predictor: BoxPredictor,
        mask_head: RegionHead | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.in_features = list(in_features)
        self.pooler = pooler
        self.res5 = res5 if isinstance(res5, nn.Module) else nn.Sequential(*res5)
        self.box_predictor = box_predictor
        check_box_predictor(box_predictor, self.num_classes)
        self.mask_on = mask_head is not None
        if mask_head is not None:
            self.mask_head = mask_head
            check_mask_head(mask_head, self.num_classes)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """``box``, and ``mask`` if there is a mask head."""
        return ("box", "mask") if self.mask_on else ("box",)

    @property
    def detection_limits(self) -> DetectionLimits:
        """NMS threshold and maximum number of detections per image, from the box predictor."""
        return DetectionLimits(self.box_predictor.test_nms_thresh, self.box_predictor.test_topk_per_image)

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Compute losses or detections; see ``ROIHeads.forward``."""
        if targets is None:
            detections = self.detect_boxes(images, features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        sampled = self.label_and_sample_proposals(proposals, targets)
        regions = self._shared_roi_transform(features, [p.proposal_boxes for p in sampled])
        losses = self.box_predictor.losses(self.box_predictor(regions.mean(dim=(2, 3))), sampled)
        if self.mask_on:
            foreground, masks = select_foreground_proposals(sampled, self.num_classes)
            # The stage is expensive, so the mask head reuses its output for the foreground regions.
            foreground_regions = regions[torch.cat(masks).nonzero().squeeze(1)] if masks else regions
            losses.update(compute_region_losses(self.mask_head, foreground_regions, foreground))
        return sampled, losses

    def detect_boxes(
        self, images: ImageList, features: Features, proposals: Sequence[Instances]
    ) -> list[Instances]:
        """Detect boxes only; see ``ROIHeads.detect_boxes``."""
        regions = self._shared_roi_transform(features, [p.proposal_boxes for p in proposals])
        detections, _ = self.box_predictor.inference(self.box_predictor(regions.mean(dim=(2, 3))), proposals)
        return detections

    def forward_with_given_boxes(self, features: Features, instances: Sequence[Instances]) -> list[Instances]:
        """Predict masks for known boxes; see ``StandardROIHeads.forward_with_given_boxes``."""
        check_given_boxes(instances)
        if not self.mask_on:
            return list(instances)
        regions = self._shared_roi_transform(features, [p.pred_boxes for p in instances])
        return predict_regions(self.mask_head, regions, instances)

    def detect_padded(
        self, features: Features, regions: PaddedRegions, image_sizes: ImageSizes
    ) -> PaddedDetections:
        """Detect boxes without waiting for the device; see ``ROIHeads.detect_padded``."""
        predictor = as_padded(self.box_predictor)
        x = self._transform_padded(features, regions.boxes)
        predictions = self.box_predictor(x.mean(dim=(2, 3)))
        return to_detections(predictor.select(predictions, regions, image_sizes))

    def predict_padded(self, features: Features, detections: PaddedDetections) -> RegionLogits:
        """Predict masks of all detections, padding included; see ``ROIHeads.predict_padded``."""
        if not self.mask_on:
            return RegionLogits()
        x = self._transform_padded(features, detections.boxes)
        return RegionLogits(masks=predict_mask_logits(self.mask_head, x, detections))

    def _transform_padded(self, features: Features, boxes: Tensor) -> Tensor:
        maps = [features[name] for name in self.in_features]
        regions: Tensor = self.res5(self.pooler.pool(maps, to_rois(boxes)))
        return regions

    def _shared_roi_transform(self, features: Features, boxes: list[Boxes]) -> Tensor:
        regions: Tensor = self.res5(self.pooler([features[name] for name in self.in_features], boxes))
        return regions
