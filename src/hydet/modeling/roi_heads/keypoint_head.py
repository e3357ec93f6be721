"""Keypoint heads: predict a heatmap per keypoint for each region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, ConvTranspose2d, ShapeSpec, c2_msra_fill
from hydet.modeling.compilable_layers import CompilableLayers
from hydet.modeling.selection.foreground import carry_ground_truth
from hydet.structures import Instances, Keypoints, Losses, heatmaps_to_keypoints
from hydet.structures.precision import at_least_float32

__all__ = [
    "BaseKeypointRCNNHead",
    "KRCNNConvDeconvUpsampleHead",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
]

UPSAMPLING = 2
IGNORED_CELL = -1

# R regions over all images, K keypoints, S x S cells per heatmap.


def keypoint_rcnn_loss(
    pred_keypoint_logits: Tensor, instances: Sequence[Instances], normalizer: float | None
) -> Tensor:
    """Compute the cross-entropy over the cells of each heatmap, summed over the visible keypoints.

    Args:
        pred_keypoint_logits: ``(R, K, S, S)``.
        instances: foreground proposals, R over all images, with ``proposal_boxes`` and ``gt_keypoints``. An image
            without foreground may lack the fields.
        normalizer: divisor of the sum; ``None`` for the number of visible keypoints inside their regions.

    Returns:
        A scalar. Without keypoints it is 0 and connected to ``pred_keypoint_logits``.

    Raises:
        ValueError: if the heatmaps are not square.

    Source: He et al. 2017 (arXiv:1703.06870), section 5.
    """
    if pred_keypoint_logits.shape[2] != pred_keypoint_logits.shape[3]:
        raise ValueError(f"heatmaps must be square, got logits of shape {tuple(pred_keypoint_logits.shape)}")
    nonempty = [instances_i for instances_i in instances if len(instances_i) > 0]
    if not nonempty:
        return pred_keypoint_logits.sum() * 0.0
    boxes = torch.cat([instances_i.proposal_boxes.tensor for instances_i in nonempty])
    keypoints = Keypoints.cat([instances_i.gt_keypoints for instances_i in nonempty])
    cells, valid = keypoints.to_heatmap(boxes, pred_keypoint_logits.shape[2])  # (R, K) each
    valid = valid.bool().flatten()
    logits = pred_keypoint_logits.flatten(2).flatten(0, 1)  # (R, K, S, S) -> (R * K, S * S)
    logits = at_least_float32(logits)
    # A softmax over cells instead of a sigmoid per cell: a keypoint has exactly one position.
    targets = torch.where(valid, cells.flatten(), IGNORED_CELL)
    loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED_CELL)
    return loss / (valid.sum().clamp(min=1) if normalizer is None else normalizer)


def keypoint_rcnn_inference(pred_keypoint_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Add the most likely keypoints to detections, in place.

    Args:
        pred_keypoint_logits: ``(R, K, S, S)``.
        pred_instances: detections, R over all images, with ``pred_boxes``. They gain ``pred_keypoints``,
            ``(R_i, K, 3)`` as (x, y, score) in pixels of the input, and ``pred_keypoint_heatmaps``, their
            ``(R_i, K, S, S)`` logits.
    """
    if len(pred_instances) == 0:
        return
    counts = [instances_i.pred_boxes.tensor.shape[0] for instances_i in pred_instances]
    boxes = torch.cat([instances_i.pred_boxes.tensor for instances_i in pred_instances])
    heatmaps = at_least_float32(pred_keypoint_logits.detach())
    # heatmaps_to_keypoints returns (x, y, logit, score).
    keypoints = heatmaps_to_keypoints(heatmaps, boxes.detach())[:, :, [0, 1, 3]]
    per_image = zip(pred_instances, keypoints.split(counts), heatmaps.split(counts), strict=True)
    for instances_i, keypoints_i, heatmaps_i in per_image:
        instances_i.pred_keypoints = keypoints_i
        instances_i.pred_keypoint_heatmaps = heatmaps_i


class BaseKeypointRCNNHead(CompilableLayers, ABC):
    """Losses and inference of a keypoint head. A subclass implements ``layers``.

    Args:
        num_keypoints: K.
        loss_weight: factor of the loss.
        loss_normalizer: ``"visible"`` divides the loss by the number of visible keypoints in the batch. A number
            divides it by that number times the number of images, so a keypoint has the same weight whether a batch has
            few or many visible keypoints.

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

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> Losses | list[Instances]:
        """Compute losses for proposals with ground truth (``gt_classes``), keypoints for detections, in any mode.

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
        results = [copy(instances_i) for instances_i in instances]
        keypoint_rcnn_inference(x, results)
        return results

    @abstractmethod
    def layers(self, x: Tensor) -> Tensor:
        """Compute ``(R, K, S, S)`` heatmap logits from ``(R, C, H, W)`` features."""


# ``forward`` is that of the base head; ``nn.Sequential`` only holds the layers.
class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead, nn.Sequential):  # type: ignore[misc]
    """Keypoint head of Mask R-CNN: 3x3 convolutions, a transposed convolution, and bilinear upsampling, by 2 each.

    Args:
        input_shape: shape of the pooled features.
        num_keypoints: K.
        conv_dims: output channels of the 3x3 convolutions, each followed by a ReLU.
        **kwargs: arguments of ``BaseKeypointRCNNHead``.

    Raises:
        ValueError: if ``input_shape`` has no channels.

    Source: He et al. 2017 (arXiv:1703.06870), section 5.
    """

    def __init__(
        self, *, input_shape: ShapeSpec, num_keypoints: int, conv_dims: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(num_keypoints=num_keypoints, **kwargs)
        if input_shape.channels is None:
            raise ValueError(f"KRCNNConvDeconvUpsampleHead: input_shape needs channels, got {input_shape}")
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
        """Compute ``(R, K, 4H, 4W)`` heatmap logits from ``(R, C, H, W)`` features."""
        for layer in self:
            x = layer(x)
        return F.interpolate(x, scale_factor=UPSAMPLING, mode="bilinear", align_corners=False)
