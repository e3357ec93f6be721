"""A model that predicts class-agnostic object proposals only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hydet.modeling.joining import build_proposal_generator
from hydet.modeling.padded import PaddedResults, results_to_instances, to_regions
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.protocols import BackboneProtocol, ProposalGenerator, Task
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import ImageList, Instances, Losses, ModelInput, ModelOutput

from .meta_architecture import MetaArchitecture
from .model_inputs import get_gt_instances, output_size
from .proposals import generate_proposals, propose_padded
from .training_image import draw_proposals

__all__ = ["ProposalNetwork"]


class ProposalNetwork(MetaArchitecture):
    """A model of class-agnostic proposals: a backbone and a proposal generator.

    Args:
        backbone: computes feature maps from images.
        proposal_generator: such as ``RPN``.
        pixel_mean: mean per channel; see ``MetaArchitecture``.
        pixel_std: standard deviation per channel; see ``MetaArchitecture``.
        input_format: channel order that the weights expect.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.

    ``inference`` returns one ``{"proposals": Instances}`` per image, with ``proposal_boxes`` and ``objectness_logits``
    at the output resolution.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.
    """

    proposal_generator: ProposalGenerator

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        proposal_generator: ProposalGenerator | partial[ProposalGenerator],
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
    def tasks(self) -> tuple[Task, ...]:
        """``("rotated_proposals",)`` for rotated boxes, else ``("proposals",)``."""
        return ("rotated_proposals",) if self.proposal_generator.box_dim == 5 else ("proposals",)

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute the losses of the proposal generator against ``instances``, in any mode."""
        images = self.preprocess_image(batched_inputs)
        return self._propose_with_losses(batched_inputs, images)[1]

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Propose regions in each image, in any mode."""
        images = self.preprocess_image(batched_inputs)
        if self.is_compiled:
            proposals = results_to_instances(self.run_core(images), images.image_sizes)
        else:
            proposals, _ = self.proposal_generator(images, self.backbone(images.tensor))
        return self._postprocess(proposals, batched_inputs, images)

    def inference_padded(self, images: Tensor, image_sizes: ImageSizes) -> PaddedResults:
        """Propose regions as padded tensors; see ``MetaArchitecture.inference_padded``."""
        selected = propose_padded(self.proposal_generator, self.backbone(images), image_sizes)
        boxes, counts = to_regions(selected)
        return PaddedResults(boxes=boxes, scores=selected.scores, counts=counts)

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and proposals from one pass through the backbone, in any mode."""
        images = self.preprocess_image(batched_inputs)
        proposals, losses = self._propose_with_losses(batched_inputs, images)
        with torch.no_grad():
            return losses, self._postprocess(proposals, batched_inputs, images)

    def visualize_training(
        self, batched_inputs: Sequence[ModelInput], proposals: Sequence[Instances]
    ) -> Tensor:
        """Draw the first image with its ground truth, and beside it with its best proposals.

        Args:
            batched_inputs: the batch, with ``instances``.
            proposals: per image, with ``proposal_boxes`` and ``objectness_logits``, in any order.

        Returns:
            ``(3, H, 2 * W)`` uint8 RGB image.
        """
        return draw_proposals(batched_inputs[0], proposals[0], input_format=self.input_format)

    def _propose_with_losses(
        self, batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> tuple[list[Instances], Losses]:
        targets = get_gt_instances(batched_inputs, self.device)
        features = self.backbone(images.tensor)
        return generate_proposals(self.proposal_generator, batched_inputs, images, features, targets)

    @staticmethod
    def _postprocess(
        proposals: Sequence[Instances], batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> list[ModelOutput]:
        return [
            {"proposals": detector_postprocess(proposals_i, *output_size(entry, size))}
            for proposals_i, entry, size in zip(proposals, batched_inputs, images.image_sizes, strict=True)
        ]
