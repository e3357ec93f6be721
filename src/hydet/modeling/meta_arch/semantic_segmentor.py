"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.joining import build_sem_seg_head
from hydet.modeling.postprocessing import sem_seg_postprocess
from hydet.modeling.training_pictures import labels_beside
from hydet.structures import ImageList

from .generalized_rcnn import output_size
from .meta_architecture import MetaArchitecture, ModelInput, describe

__all__ = ["SemanticSegmentor"]


class SemanticSegmentor(MetaArchitecture):
    """A backbone and a semantic head.

    Args:
        backbone: images to feature maps.
        sem_seg_head: such as ``SemSegFPNHead``.
        pixel_mean: one number a channel; see ``MetaArchitecture``.
        pixel_std: one number a channel.
        input_format: channel order of the input, needed to draw pictures.
        vis_period: draw true and predicted labels every so many training steps; 0 never.

    ``inference`` gives one ``{"sem_seg": Tensor}`` an image: ``(K, H, W)`` logits at the output resolution.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
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
    def tasks(self) -> tuple[str, ...]:
        return ("semantic",)

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        return self._losses(batched_inputs, self.preprocess_image(batched_inputs))[1]

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[Any]:
        images = self.preprocess_image(batched_inputs)
        logits, _ = self.sem_seg_head(self.backbone(images.tensor))
        return self._postprocess(logits, batched_inputs, images)

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[Any]]:
        images = self.preprocess_image(batched_inputs)
        features, losses = self._losses(batched_inputs, images)
        with torch.no_grad():
            logits, _ = self.sem_seg_head(features)
            return losses, self._postprocess(logits, batched_inputs, images)

    def visualize_training(self, batched_inputs: Sequence[ModelInput], logits: Tensor) -> None:
        """Hand ``on_picture`` the first image tinted by its true labels, and by the predicted ones beside.

        Args:
            batched_inputs: the batch.
            logits: ``(B, K, H, W)`` at the resolution of the padded input.
        """
        if self.on_picture is not None:
            image, truth = batched_inputs[0]["image"], batched_inputs[0]["sem_seg"]
            found = logits[0, :, : truth.shape[0], : truth.shape[1]].argmax(dim=0)
            picture = labels_beside(image, truth, found, logits.shape[1], bgr=self.input_format == "BGR")
            self.on_picture("Left: true labels. Right: predicted labels", picture)

    def _losses(
        self, batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        targets = padded_label_maps(self, batched_inputs, images)
        features = self.backbone(images.tensor)
        _, losses = self.sem_seg_head(features, targets)
        if self._picture_is_due():
            with torch.no_grad():
                self.visualize_training(batched_inputs, self.sem_seg_head(features)[0])
        return features, losses

    @staticmethod
    def _postprocess(
        logits: Tensor, batched_inputs: Sequence[ModelInput], images: ImageList
    ) -> list[dict[str, Tensor]]:
        return [
            {"sem_seg": sem_seg_postprocess(scores, size, *output_size(entry, size))}
            for scores, entry, size in zip(logits, batched_inputs, images.image_sizes, strict=True)
        ]


def padded_label_maps(model: Any, batched_inputs: Sequence[ModelInput], images: ImageList) -> Tensor:
    """``(B, H, W)`` label maps of a batch, padded like its images with the head's ``ignore_value``.

    Raises:
        ValueError: if one is missing or has a label that is neither a class nor ``ignore_value``.
    """
    maps = model._ground_truth(batched_inputs, "sem_seg")
    num_classes = getattr(model.sem_seg_head, "num_classes", None)
    if num_classes is not None:
        for entry in batched_inputs:
            _check_labels(entry, num_classes, model.sem_seg_head.ignore_value)
    padded = ImageList.from_tensors(
        maps,
        model.backbone.size_divisibility,
        model.sem_seg_head.ignore_value,
        model.backbone.padding_constraints,
    )
    return padded.tensor


def _check_labels(entry: ModelInput, num_classes: int, ignored: int) -> None:
    """A label out of range would end the process on a GPU."""
    labels = entry["sem_seg"]
    if labels.numel() == 0 or (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        return
    wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignored)]
    if wrong.numel() > 0:
        raise ValueError(
            f"{describe(entry)}: sem_seg has label {int(wrong[0])}; labels are 0 to {num_classes - 1} or {ignored}"
        )
