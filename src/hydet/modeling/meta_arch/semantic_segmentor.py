"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from hydet.modeling.joining import build_sem_seg_head
from hydet.modeling.padded import PaddedResults
from hydet.modeling.postprocessing import sem_seg_postprocess
from hydet.modeling.protocols import BackboneProtocol, SemanticHead, Task
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import ImageList, Losses, ModelInput, ModelOutput

from .meta_architecture import MetaArchitecture
from .model_inputs import batch_label_maps, output_size
from .training_image import draw_labels

__all__ = ["SemanticSegmentor"]


class SemanticSegmentor(MetaArchitecture):
    """A semantic segmentation model: a backbone and a semantic head.

    Args:
        backbone: computes feature maps from images.
        sem_seg_head: such as ``SemSegFPNHead``.
        pixel_mean: mean per channel; see ``MetaArchitecture``.
        pixel_std: standard deviation per channel; see ``MetaArchitecture``.
        input_format: channel order that the weights expect.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.

    ``inference`` returns one ``{"sem_seg": Tensor}`` per image: ``(K, H, W)`` logits at the output resolution.
    """

    sem_seg_head: SemanticHead

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        sem_seg_head: SemanticHead | partial[SemanticHead],
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
        self.sem_seg_head = build_sem_seg_head(sem_seg_head, backbone.output_shape())

    @property
    def tasks(self) -> tuple[Task, ...]:
        """``("semantic",)``."""
        return ("semantic",)

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute the losses of the semantic head against ``sem_seg``, in any mode."""
        images = self.preprocess_image(batched_inputs)
        return self._compute_losses(batched_inputs, images, self.backbone(images.tensor))

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Compute the class logits of every pixel, in any mode."""
        images = self.preprocess_image(batched_inputs)
        logits = self.run_core(images).semantic_logits
        assert logits is not None
        return self._postprocess(logits, batched_inputs, images)

    def inference_padded(self, images: Tensor, image_sizes: ImageSizes) -> PaddedResults:
        """Compute the class logits of every pixel; see ``MetaArchitecture.inference_padded``."""
        return PaddedResults(semantic_logits=predict_logits(self.sem_seg_head, self.backbone(images)))

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and logits from one pass through the backbone, in any mode."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses = self._compute_losses(batched_inputs, images, features)
        with torch.no_grad():
            logits = predict_logits(self.sem_seg_head, features)
            return losses, self._postprocess(logits, batched_inputs, images)

    def visualize_training(self, batched_inputs: Sequence[ModelInput], logits: Tensor) -> Tensor:
        """Draw the first image tinted by its true labels, and beside it by its predicted labels.

        Args:
            batched_inputs: the batch, with ``sem_seg``.
            logits: ``(B, K, H, W)`` at the resolution of the padded input.

        Returns:
            ``(3, H, 2 * W)`` uint8 RGB image.
        """
        return draw_labels(batched_inputs[0], logits[0], input_format=self.input_format)

    def _compute_losses(
        self, batched_inputs: Sequence[ModelInput], images: ImageList, features: Mapping[str, Tensor]
    ) -> Losses:
        return compute_label_losses(
            self.sem_seg_head, features, batched_inputs, backbone=self.backbone, device=self.device
        )

    @staticmethod
    def _postprocess(
        logits: Tensor, batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> list[ModelOutput]:
        return [
            {"sem_seg": sem_seg_postprocess(scores, size, *output_size(entry, size))}
            for scores, entry, size in zip(logits, batched_inputs, images.image_sizes, strict=True)
        ]


def compute_label_losses(
    head: SemanticHead,
    features: Mapping[str, Tensor],
    batched_inputs: Sequence[ModelInput],
    *,
    backbone: BackboneProtocol,
    device: torch.device,
) -> Losses:
    """Compute the losses of a semantic head against the ``sem_seg`` of the inputs, padded like their images."""
    targets = batch_label_maps(
        batched_inputs, backbone, device, num_classes=head.num_classes, ignore_value=head.ignore_value
    )
    return head(features, targets)[1]


def predict_logits(head: SemanticHead, features: Mapping[str, Tensor]) -> Tensor:
    """Return the ``(B, K, H, W)`` logits of a semantic head at the resolution of the padded input."""
    logits, _ = head(features)
    if logits is None:
        raise TypeError(f"{type(head).__name__} returned no logits for features without targets")
    return logits
