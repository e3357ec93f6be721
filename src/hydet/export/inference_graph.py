"""The part of a detector that is exported: from a batch of 8-bit images to padded results."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.modeling import MetaArchitecture
from hydet.modeling.selection.suppression import clip_to_images

__all__ = ["INPUT_NAMES", "InferenceGraph"]

INPUT_NAMES = ("images", "sizes")


class InferenceGraph(nn.Module):
    """Maps 8-bit RGB images to results: order of channels, normalization, padding, and the model's tensor core.

    Args:
        model: a detector with a tensor core.
    """

    def __init__(self, model: MetaArchitecture) -> None:
        super().__init__()
        self.model = model
        constraints = model.backbone.padding_constraints
        self.square_size = constraints.get("square_size", 0)
        self.divisor = max(1, constraints.get("size_divisibility", model.backbone.size_divisibility))
        self.flips_channels = model.input_format == "BGR"

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Detect objects in a batch of images.

        Args:
            images: ``(B, 3, H, W)`` uint8 RGB. Smaller images lie in the upper left corner, and the values of the rest
                do not matter.
            sizes: ``(B, 2)`` int64 (height, width) of each image.

        Returns:
            Those of ``boxes``, ``scores``, ``classes``, ``counts``, ``masks``, ``keypoint_heatmaps`` and
            ``semantic_logits`` that the model predicts; see ``docs/export.md``.
        """
        model = self.model
        height, width = images.shape[2], images.shape[3]
        x = images.flip(1) if self.flips_channels else images
        x = (x.to(model.pixel_mean.dtype) - model.pixel_mean) / model.pixel_std
        rows = torch.arange(height, device=images.device) < sizes[:, :1]  # (B, H)
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]  # (B, W)
        # The padding of a batch has the value 0 after normalization.
        x = torch.where(rows[:, None, :, None] & columns[:, None, None, :], x, 0.0)
        results = model.inference_padded(F.pad(x, self._padding(height, width)), sizes)

        outputs: dict[str, Tensor] = {}
        if results.boxes is not None and results.scores is not None and results.counts is not None:
            outputs["boxes"] = clip_to_images(results.boxes, sizes)
            outputs["scores"] = results.scores.float()
            if results.classes is not None:
                outputs["classes"] = results.classes
            outputs["counts"] = results.counts
        if results.mask_logits is not None:
            outputs["masks"] = results.mask_logits.float().sigmoid()
        if results.keypoint_logits is not None:
            outputs["keypoint_heatmaps"] = results.keypoint_logits.float()
        if results.semantic_logits is not None:
            outputs["semantic_logits"] = results.semantic_logits[:, :, :height, :width].float()
        return outputs

    def _padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the columns and rows to add on the left, right, top and bottom."""
        if self.square_size > 0:
            new_height = new_width = self.square_size
        else:
            new_height, new_width = height, width
        new_height, new_width = (
            (side + self.divisor - 1) // self.divisor * self.divisor for side in (new_height, new_width)
        )
        return 0, new_width - width, 0, new_height - height
