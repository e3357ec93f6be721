"""Class-agnostic object proposals and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.joining import build_proposal_generator
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.proposal_generators import RRPN
from hydet.structures import ImageList, Instances

from .generalized_rcnn import output_size, propose
from .meta_architecture import MetaArchitecture, ModelInput

__all__ = ["ProposalNetwork"]


class ProposalNetwork(MetaArchitecture):
    """A backbone and a proposal generator.

    Args:
        backbone: images to feature maps.
        proposal_generator: such as ``RPN``.
        pixel_mean: one number a channel; see ``MetaArchitecture``.
        pixel_std: one number a channel.
        input_format: channel order of the input, needed to draw pictures.
        vis_period: draw ground truth and proposals every so many training steps; 0 never.

    ``inference`` gives one ``{"proposals": Instances}`` an image, with ``proposal_boxes`` and
    ``objectness_logits`` at the output resolution.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        proposal_generator: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__(
            backbone=backbone,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.proposal_generator = build_proposal_generator(proposal_generator, backbone.output_shape())

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("rotated_proposals",) if isinstance(self.proposal_generator, RRPN) else ("proposals",)

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        return self._losses(batched_inputs, self.preprocess_image(batched_inputs))[1]

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[Any]:
        images = self.preprocess_image(batched_inputs)
        proposals, _ = self.proposal_generator(images, self.backbone(images.tensor))
        return self._postprocess(proposals, batched_inputs, images)

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[Any]]:
        images = self.preprocess_image(batched_inputs)
        proposals, losses = self._losses(batched_inputs, images)
        with torch.no_grad():
            return losses, self._postprocess(proposals, batched_inputs, images)

    def visualize_training(
        self, batched_inputs: Sequence[ModelInput], proposals: Sequence[Instances]
    ) -> None:
        """Hand ``on_picture`` the first image with its ground truth, and with its best proposals beside."""
        self._show_proposals(batched_inputs[0], proposals[0])

    def _losses(
        self, batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        targets = self._ground_truth(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, losses = propose(self.proposal_generator, batched_inputs, images, features, targets)
        if self._picture_is_due():
            self.visualize_training(batched_inputs, proposals)
        return proposals, losses

    @staticmethod
    def _postprocess(
        proposals: Sequence[Instances], batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> list[dict[str, Instances]]:
        return [
            {"proposals": detector_postprocess(found, *output_size(entry, size))}
            for found, entry, size in zip(proposals, batched_inputs, images.image_sizes, strict=True)
        ]
