"""Two-stage detectors: features, proposals, then per-region predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor

from hydet.modeling.joining import build_proposal_generator, build_roi_heads
from hydet.modeling.padded import PaddedResults, results_to_instances, to_regions
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.protocols import BackboneProtocol, ProposalGenerator, RegionHeads, Task
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import ImageList, Instances, Losses, ModelInput, ModelOutput

from .meta_architecture import MetaArchitecture
from .model_inputs import get_gt_instances, get_proposals, output_size
from .proposals import generate_proposals, propose_padded
from .training_image import draw_proposals

__all__ = ["GeneralizedRCNN"]


class GeneralizedRCNN(MetaArchitecture):
    """A two-stage detector: a backbone, a proposal generator, and heads that predict per region.

    Args:
        backbone: computes feature maps from images.
        proposal_generator: such as ``RPN``; ``None`` if proposals come with the input ("Fast R-CNN").
        roi_heads: such as ``StandardROIHeads``.
        pixel_mean: mean per channel; see ``MetaArchitecture``.
        pixel_std: standard deviation per channel; see ``MetaArchitecture``.
        input_format: channel order that the weights expect.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.

    Source: Ren et al. 2015 (arXiv:1506.01497); He et al. 2017 (arXiv:1703.06870).
    """

    proposal_generator: ProposalGenerator | None
    roi_heads: RegionHeads

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        proposal_generator: ProposalGenerator | partial[ProposalGenerator] | None,
        roi_heads: RegionHeads | partial[RegionHeads],
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
        self.proposal_generator = (
            None if proposal_generator is None else build_proposal_generator(proposal_generator, shapes)
        )
        self.roi_heads = build_roi_heads(roi_heads, shapes)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the ROI heads."""
        return self.roi_heads.tasks

    @property
    def needs_proposals(self) -> bool:
        """True if there is no proposal generator."""
        return self.proposal_generator is None

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute the losses of proposals and regions, in any mode.

        Args:
            batched_inputs: with ``instances``, and with ``proposals`` if there is no proposal generator.

        Returns:
            Scalars by name: those of the ROI heads, then those of the proposal generator.

        Raises:
            ValueError: if an input lacks ``instances`` or required ``proposals``, or its image or ground truth cannot
                be used.
            NonFiniteProposalsError: in training mode, if the weights have diverged.
        """
        images = self.preprocess_image(batched_inputs)
        losses, _ = self._compute_losses(batched_inputs, images, self.backbone(images.tensor))
        return losses

    @overload
    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: Literal[True] = True,
    ) -> list[ModelOutput]: ...

    @overload
    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | None = None,
        *,
        do_postprocess: bool,
    ) -> list[ModelOutput] | list[Instances]: ...

    def inference(
        self,
        batched_inputs: Sequence[ModelInput],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[ModelOutput] | list[Instances]:
        """Detect objects, or predict masks and keypoints of known boxes, in any mode.

        Args:
            batched_inputs: see ``forward``; ``height`` and ``width`` are the output resolution, by default that of the
                input.
            detected_instances: per image, ``Instances`` with ``pred_boxes`` and ``pred_classes`` in the frame of the
                input. If given, no boxes are detected. They are not changed.
            do_postprocess: scale the results to the output resolution.

        Returns:
            One ``{"instances": Instances}`` per image; without post-processing, one ``Instances`` per image in the
            frame of the input.
        """
        images = self.preprocess_image(batched_inputs)
        if self.is_compiled and detected_instances is None:
            results = results_to_instances(self.run_core(images), images.image_sizes)
        else:
            features = self.backbone(images.tensor)
            results = self._detect(batched_inputs, images, features, detected_instances)
        return self._postprocess(results, batched_inputs, images.image_sizes) if do_postprocess else results

    def inference_padded(self, images: Tensor, image_sizes: ImageSizes) -> PaddedResults:
        """Detect objects as padded tensors; see ``MetaArchitecture.inference_padded``."""
        return self._predict_padded(self.backbone(images), image_sizes)

    def _predict_padded(self, features: Mapping[str, Tensor], image_sizes: ImageSizes) -> PaddedResults:
        regions = to_regions(propose_padded(self.proposal_generator, features, image_sizes))
        detections = self.roi_heads.detect_padded(features, regions, image_sizes)
        logits = self.roi_heads.predict_padded(features, detections)
        return PaddedResults(*detections, mask_logits=logits.masks, keypoint_logits=logits.keypoints)

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results from one pass through the backbone and one set of proposals, in any mode."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses, proposals = self._compute_losses(batched_inputs, images, features)
        with torch.no_grad():
            results, _ = self.roi_heads(images, features, proposals)
        return losses, self._postprocess(results, batched_inputs, images.image_sizes)

    def detect_unpasted(
        self, batched_inputs: Sequence[ModelInput], *, with_losses: bool
    ) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses, if selected, and results whose masks stay relative to the boxes; in any mode.

        Evaluation uses this method, because pasted masks of large images take gigabytes.

        Args:
            batched_inputs: see ``forward``.
            with_losses: False returns no losses and does not read the ground truth.

        Returns:
            Losses, and one result per image. It is that of ``inference``, but ``pred_masks`` is ``ROIMasks``.
        """
        images = self.preprocess_image(batched_inputs)
        losses: Losses = {}
        if self.is_compiled and not with_losses:
            results = results_to_instances(self.run_core(images), images.image_sizes)
        else:
            features = self.backbone(images.tensor)
            if with_losses:
                losses, proposals = self._compute_losses(batched_inputs, images, features)
            else:
                proposals = self.get_proposals(batched_inputs, images, features)
            with torch.no_grad():
                results, _ = self.roi_heads(images, features, proposals)
        return losses, self._postprocess(results, batched_inputs, images.image_sizes, paste_masks=False)

    def visualize_training(
        self, batched_inputs: Sequence[ModelInput], proposals: Sequence[Instances]
    ) -> Tensor:
        """Draw the first image with its ground truth, and beside it with its best proposals.

        Args:
            batched_inputs: the batch, with ``instances``.
            proposals: per image, with ``proposal_boxes`` and ``objectness_logits``, in any order. Without logits, the
                first proposals are drawn.

        Returns:
            ``(3, H, 2 * W)`` uint8 RGB image.
        """
        return draw_proposals(batched_inputs[0], proposals[0], input_format=self.input_format)

    def get_proposals(
        self, batched_inputs: Sequence[ModelInput], images: ImageList, features: Mapping[str, Tensor]
    ) -> list[Instances]:
        """Return the proposals of each image: generated, or those of the input if there is no proposal generator."""
        if self.proposal_generator is None:
            return get_proposals(batched_inputs, self.device)
        return self.proposal_generator(images, features)[0]

    def _detect(
        self,
        batched_inputs: Sequence[ModelInput],
        images: ImageList,
        features: Mapping[str, Tensor],
        detected_instances: Sequence[Instances] | None,
    ) -> list[Instances]:
        if detected_instances is not None:
            known = [instances.to(self.device) for instances in detected_instances]
            return self.roi_heads.forward_with_given_boxes(features, known)
        proposals = self.get_proposals(batched_inputs, images, features)
        results, _ = self.roi_heads(images, features, proposals)
        return results

    def _compute_losses(
        self, batched_inputs: Sequence[ModelInput], images: ImageList, features: Mapping[str, Tensor]
    ) -> tuple[Losses, list[Instances]]:
        """Return the losses, and the proposals before sampling."""
        targets = get_gt_instances(batched_inputs, self.device, num_classes=self.roi_heads.num_classes)
        proposal_losses: Losses = {}
        if self.proposal_generator is None:
            proposals = get_proposals(batched_inputs, self.device)
        else:
            proposals, proposal_losses = generate_proposals(
                self.proposal_generator, batched_inputs, images, features, targets
            )
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        return {**detector_losses, **proposal_losses}, proposals

    @staticmethod
    def _postprocess(
        results: Sequence[Instances],
        batched_inputs: Sequence[ModelInput],
        image_sizes: Sequence[tuple[int, int]],
        *,
        paste_masks: bool = True,
    ) -> list[ModelOutput]:
        return [
            {
                "instances": detector_postprocess(
                    detections, *output_size(entry, size), paste_masks=paste_masks
                )
            }
            for detections, entry, size in zip(results, batched_inputs, image_sizes, strict=True)
        ]
