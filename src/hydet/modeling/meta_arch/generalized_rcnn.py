"""Two-stage detectors: features, proposals, then per-region predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.joining import build_proposal_generator, build_roi_heads
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.selection import NonFiniteProposalsError
from hydet.structures import ImageList, Instances

from .meta_architecture import MetaArchitecture, ModelInput, describe

__all__ = ["GeneralizedRCNN"]


class GeneralizedRCNN(MetaArchitecture):
    """Any detector of three parts: a backbone, a proposal generator and heads that work on regions.

    Args:
        backbone: images to feature maps.
        proposal_generator: such as ``RPN``; ``None`` for proposals that come with the input ("Fast R-CNN").
        roi_heads: such as ``StandardROIHeads``.
        pixel_mean: one number a channel; see ``MetaArchitecture``.
        pixel_std: one number a channel.
        input_format: channel order of the input, needed to draw pictures.
        vis_period: draw ground truth and proposals every so many training steps; 0 never.

    Source: Ren et al. 2015 (arXiv:1506.01497); He et al. 2017 (arXiv:1703.06870).
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
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
        shapes = backbone.output_shape()
        self.proposal_generator = build_proposal_generator(proposal_generator, shapes)
        self.roi_heads: Any = build_roi_heads(roi_heads, shapes)

    @property
    def tasks(self) -> tuple[str, ...]:
        return getattr(self.roi_heads, "tasks", ("box",))

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Proposal and region losses.

        Args:
            batched_inputs: with ``instances``, and with ``proposals`` if there is no proposal generator.

        Returns:
            Scalars by name: the detector's, then the proposal generator's.

        Raises:
            ValueError: if an input has no ``instances``, or no ``proposals`` where they are needed; if an image or its
                ground truth is not what it should be.
            NonFiniteProposalsError: in training mode, if the weights have diverged.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses, _ = self._losses(batched_inputs, images, features)
        return losses

    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Detect; or, where boxes are known, predict everything else for them.

        Args:
            batched_inputs: see ``forward``; ``height`` and ``width`` name the output resolution, by default that
                of the input.
            detected_instances: one ``Instances`` an image with ``pred_boxes`` and ``pred_classes`` in the frame of
                the input; detection is then skipped. They are not changed.
            do_postprocess: rescale to the output resolution.

        Returns:
            One ``{"instances": Instances}`` an image; or, without post-processing, one raw ``Instances``.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals = self.get_proposals(batched_inputs, images, features)
            results, _ = self.roi_heads(images, features, proposals)
        else:
            known = [found.to(self.device) for found in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, known)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[dict[str, Instances]]]:
        """Losses and results from one pass through the backbone and one set of proposals."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses, proposals = self._losses(batched_inputs, images, features)
        with torch.no_grad():
            results, _ = self.roi_heads(images, features, proposals)
        return losses, self._postprocess(results, batched_inputs, images.image_sizes)

    def visualize_training(
        self, batched_inputs: Sequence[ModelInput], proposals: Sequence[Instances]
    ) -> None:
        """Hand ``on_picture`` the first image with its ground truth, and with its best proposals beside.

        Args:
            batched_inputs: the batch.
            proposals: as many, with ``proposal_boxes`` and ``objectness_logits``, sorted or not. Without logits, the
                first ones are shown.
        """
        self._show_proposals(batched_inputs[0], proposals[0])

    def _losses(
        self, batched_inputs: Sequence[ModelInput], images: ImageList, features: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[Instances]]:
        targets = self._ground_truth(batched_inputs, num_classes=getattr(self.roi_heads, "num_classes", None))
        proposal_losses: dict[str, Tensor] = {}
        if self.proposal_generator is None:
            proposals = self._given_proposals(batched_inputs)
        else:
            proposals, proposal_losses = propose(
                self.proposal_generator, batched_inputs, images, features, targets
            )
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        if self._picture_is_due():
            self.visualize_training(batched_inputs, proposals)
        return {**detector_losses, **proposal_losses}, proposals

    def get_proposals(
        self, batched_inputs: Sequence[ModelInput], images: ImageList, features: dict[str, Tensor]
    ) -> list[Instances]:
        """Return the proposals of the generator, or those of the inputs if the model has no generator."""
        if self.proposal_generator is None:
            return self._given_proposals(batched_inputs)
        return self.proposal_generator(images, features)[0]

    def _given_proposals(self, batched_inputs: Sequence[ModelInput]) -> list[Instances]:
        for entry in batched_inputs:
            if "proposals" not in entry:
                raise ValueError(
                    f"{describe(entry)}: a model without proposal generator needs 'proposals' in every input"
                )
        return [entry["proposals"].to(self.device) for entry in batched_inputs]

    @staticmethod
    def _postprocess(
        results: Sequence[Instances],
        batched_inputs: Sequence[ModelInput],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        return [
            {"instances": detector_postprocess(found, *output_size(entry, size))}
            for found, entry, size in zip(results, batched_inputs, image_sizes, strict=True)
        ]


def propose(
    generator: nn.Module,
    batched_inputs: Sequence[ModelInput],
    images: ImageList,
    features: dict[str, Tensor],
    targets: Sequence[Instances],
) -> tuple[list[Instances], dict[str, Tensor]]:
    """Proposals and their losses; an error about numbers that are not finite also names the inputs."""
    try:
        return generator(images, features, targets)
    except NonFiniteProposalsError as error:
        names = ", ".join(describe(batched_inputs[i]) for i in error.image_indices)
        raise NonFiniteProposalsError(f"{names}: {error}", error.image_indices) from error


def output_size(entry: ModelInput, image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) asked for by one input, by default those of the network's input."""
    return int(entry.get("height", image_size[0])), int(entry.get("width", image_size[1]))
