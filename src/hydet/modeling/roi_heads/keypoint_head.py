"""Keypoints of each region, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, ConvTranspose2d, ShapeSpec, c2_msra_fill
from hydet.structures import Instances, Keypoints, heatmaps_to_keypoints

from .proposal_selection import carry_ground_truth

__all__ = [
    "BaseKeypointRCNNHead",
    "KRCNNConvDeconvUpsampleHead",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
]

UPSAMPLING = 2

# R regions over all images, K keypoints, S x S cells a heat map.


def keypoint_rcnn_loss(
    pred_keypoint_logits: Tensor, instances: Sequence[Instances], normalizer: float | None
) -> Tensor:
    """Cross-entropy over the cells of each heat map, summed over the keypoints that are visible in their region.

    Args:
        pred_keypoint_logits: ``(R, K, S, S)``.
        instances: foreground proposals, R in all, with ``proposal_boxes`` and ``gt_keypoints``; an image without any
            may lack the fields.
        normalizer: what the sum is divided by; ``None`` for the number of keypoints in it.

    Returns:
        A scalar; without keypoints, a connected 0.

    Source: He et al. 2017 (arXiv:1703.06870), section 5.
    """
    if pred_keypoint_logits.shape[2] != pred_keypoint_logits.shape[3]:
        raise ValueError(f"heat maps must be square, got logits of shape {tuple(pred_keypoint_logits.shape)}")
    present = [found for found in instances if len(found) > 0]
    if not present:
        return pred_keypoint_logits.sum() * 0.0
    boxes = torch.cat([found.proposal_boxes.tensor for found in present])
    keypoints = Keypoints.cat([found.gt_keypoints for found in present])
    cells, valid = keypoints.to_heatmap(boxes, pred_keypoint_logits.shape[2])  # (R, K) each
    valid = valid.bool().flatten()
    logits = pred_keypoint_logits.flatten(2).flatten(0, 1)  # (R, K, S, S) -> (R * K, S * S)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ignored = -1
    wanted = torch.where(valid, cells.flatten(), ignored)
    loss = F.cross_entropy(logits, wanted, reduction="sum", ignore_index=ignored)
    return loss / (valid.sum().clamp(min=1) if normalizer is None else normalizer)


def keypoint_rcnn_inference(pred_keypoint_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Give detections the keypoints that their heat maps show.

    Args:
        pred_keypoint_logits: ``(R, K, S, S)``.
        pred_instances: detections, R in all, with ``pred_boxes``. They gain ``pred_keypoints``, ``(R_i, K, 3)`` as
            (x, y, score) in pixels of the input, and ``pred_keypoint_heatmaps``, their ``(R_i, K, S, S)`` logits.
    """
    if len(pred_instances) == 0:
        return
    counts = [found.pred_boxes.tensor.shape[0] for found in pred_instances]
    boxes = torch.cat([found.pred_boxes.tensor for found in pred_instances])
    heatmaps = pred_keypoint_logits.detach()
    points = heatmaps_to_keypoints(heatmaps, boxes.detach())[:, :, [0, 1, 3]]
    parts = zip(pred_instances, points.split(counts), heatmaps.split(counts), strict=True)
    for found, own_points, own_heatmaps in parts:
        found.pred_keypoints = own_points
        found.pred_keypoint_heatmaps = own_heatmaps


class BaseKeypointRCNNHead(nn.Module):
    """Losses and inference of a keypoint head; a subclass gives ``layers``.

    Args:
        num_keypoints: K.
        loss_weight: factor of the loss.
        loss_normalizer: ``"visible"`` divides the loss by the number of visible keypoints, a number by itself times
            the number of images.

    Raises:
        ValueError: if ``loss_normalizer`` is neither ``"visible"`` nor a positive number.
    """

    def __init__(
        self, *, num_keypoints: int, loss_weight: float = 1.0, loss_normalizer: float | str = 1.0
    ) -> None:
        super().__init__()
        is_number = isinstance(loss_normalizer, int | float) and not isinstance(loss_normalizer, bool)
        if not (loss_normalizer == "visible" or (is_number and float(loss_normalizer) > 0)):
            raise ValueError(
                f"loss_normalizer must be 'visible' or a positive number, got {loss_normalizer!r}"
            )
        self.num_keypoints = num_keypoints
        self.loss_weight = loss_weight
        self.loss_normalizer = loss_normalizer

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Losses for proposals that carry ground truth (``gt_classes``), keypoints for detections, in any mode.

        Args:
            x: ``(R, C, H, W)`` region features.
            instances: the R regions, per image; see ``keypoint_rcnn_loss`` and ``keypoint_rcnn_inference``.

        Returns:
            ``{"loss_keypoint": ...}``, or new ``Instances`` with keypoints.
        """
        x = self.layers(x)
        if carry_ground_truth(instances):
            normalizer = (
                None if isinstance(self.loss_normalizer, str) else len(instances) * self.loss_normalizer
            )
            return {"loss_keypoint": keypoint_rcnn_loss(x, instances, normalizer) * self.loss_weight}
        found = [copy(one) for one in instances]
        keypoint_rcnn_inference(x, found)
        return found

    def layers(self, x: Tensor) -> Tensor:
        """``(R, C, H, W)`` features to ``(R, K, S, S)`` logits."""
        raise NotImplementedError


class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead, nn.Sequential):
    """3x3 convolutions, a transposed one that doubles the size, and bilinear upsampling that doubles it again.

    Args:
        input_shape: of the pooled features.
        num_keypoints: K.
        conv_dims: channels of the 3x3 convolutions, each followed by a ReLU.
        **kwargs: those of ``BaseKeypointRCNNHead``.

    Source: He et al. 2017 (arXiv:1703.06870), section 5.
    """

    def __init__(
        self, *, input_shape: ShapeSpec, num_keypoints: int, conv_dims: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(num_keypoints=num_keypoints, **kwargs)
        if input_shape.channels is None:
            raise ValueError(f"input_shape must say how many channels there are, got {input_shape}")
        channels = input_shape.channels
        for k, dim in enumerate(conv_dims, start=1):
            self._add(f"conv_fcn{k}", Conv2d(channels, dim, kernel_size=3, padding=1))
            self.add_module(f"conv_fcn_relu{k}", nn.ReLU(inplace=True))
            channels = dim
        self._add(
            "score_lowres", ConvTranspose2d(channels, num_keypoints, kernel_size=4, stride=2, padding=1)
        )

    def _add(self, name: str, layer: nn.Module) -> None:
        c2_msra_fill(layer)
        self.add_module(name, layer)

    def layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return F.interpolate(x, scale_factor=UPSAMPLING, mode="bilinear", align_corners=False)
