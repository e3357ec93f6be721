"""Region heads on the last residual stage, which all of them share ("C4")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.poolers import ROIPooler
from hydet.structures import Boxes, ImageList, Instances

from .proposal_selection import select_foreground_proposals
from .roi_heads import ROIHeads
from .standard_roi_heads import check_known

__all__ = ["Res5ROIHeads"]


class Res5ROIHeads(ROIHeads):
    """Pools one feature map, runs a residual stage over each region, and predicts boxes and masks from the result.

    Args:
        in_features: names of the feature maps to pool, usually one.
        pooler: pools them.
        res5: the stage, a module or its blocks.
        box_predictor: such as ``FastRCNNOutputLayers``; it reads the stage's output, averaged over cells.
        mask_head: such as ``MaskRCNNConvUpsampleHead``; it reads the stage's output itself. ``None`` without masks.
        **kwargs: those of ``ROIHeads``.

    Raises:
        ValueError: if parts do not fit together.

    Source: Ren et al. 2015 (arXiv:1506.01497) as in He et al. 2015 (arXiv:1512.03385), appendix A; with masks, He et
    al. 2017 (arXiv:1703.06870), figure 4 (left).
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        pooler: ROIPooler,
        res5: nn.Module | Sequence[nn.Module],
        box_predictor: nn.Module,
        mask_head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.in_features = list(in_features)
        self.pooler = pooler
        self.res5 = res5 if isinstance(res5, nn.Module) else nn.Sequential(*res5)
        self.box_predictor = box_predictor
        self.mask_on = mask_head is not None
        if mask_head is not None:
            self.mask_head = mask_head
        if getattr(box_predictor, "num_classes", self.num_classes) != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, but box_predictor has {box_predictor.num_classes} classes"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("box", "mask") if self.mask_on else ("box",)

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        if targets is None:
            regions = self._shared_roi_transform(features, [p.proposal_boxes for p in proposals])
            found, _ = self.box_predictor.inference(self.box_predictor(regions.mean(dim=(2, 3))), proposals)
            return self.forward_with_given_boxes(features, found), {}
        sampled = self.label_and_sample_proposals(proposals, targets)
        regions = self._shared_roi_transform(features, [p.proposal_boxes for p in sampled])
        losses = self.box_predictor.losses(self.box_predictor(regions.mean(dim=(2, 3))), sampled)
        if self.mask_on:
            chosen, masks = select_foreground_proposals(sampled, self.num_classes)
            of_chosen = regions[torch.cat(masks).nonzero().squeeze(1)] if masks else regions
            losses.update(self.mask_head(of_chosen, chosen))
        return sampled, losses

    def forward_with_given_boxes(
        self, features: Mapping[str, Tensor], instances: Sequence[Instances]
    ) -> list[Instances]:
        """Predict masks for boxes that are known; see ``StandardROIHeads.forward_with_given_boxes``."""
        check_known(instances)
        if not self.mask_on:
            return list(instances)
        regions = self._shared_roi_transform(features, [found.pred_boxes for found in instances])
        return self.mask_head(regions, instances)

    def _shared_roi_transform(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        return self.res5(self.pooler([features[name] for name in self.in_features], boxes))
