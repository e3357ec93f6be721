"""A mask for each region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, ConvTranspose2d, ShapeSpec, c2_msra_fill, get_norm
from hydet.modeling.training_pictures import DrawsTraining, OnPicture, checked_period
from hydet.structures import Instances

from .proposal_selection import carry_ground_truth

__all__ = ["BaseMaskRCNNHead", "MaskRCNNConvUpsampleHead", "mask_rcnn_inference", "mask_rcnn_loss"]

SHOWN_MASKS, SHOWN_SIZE = 8, 112

# R regions over all images, C channels (a mask for each class, or 1 for all), M x M cells a mask.


def mask_rcnn_loss(
    pred_mask_logits: Tensor,
    instances: Sequence[Instances],
    vis_period: int = 0,
    *,
    on_picture: OnPicture | None = None,
) -> Tensor:
    """Mean binary cross-entropy over the cells of the true class's mask.

    Args:
        pred_mask_logits: ``(R, C, M, M)``.
        instances: foreground proposals, R in all, with ``proposal_boxes``, ``gt_classes`` and ``gt_masks``; an image
            without any may lack the fields.
        vis_period: if positive, ``on_picture`` gets a picture now. When that is, the caller knows.
        on_picture: takes a name and a ``(3, H, W)`` uint8 picture: predictions on the left, targets on the right.

    Returns:
        A scalar; without regions, a connected 0.

    Source: He et al. 2017 (arXiv:1703.06870), section 3.
    """
    if pred_mask_logits.shape[2] != pred_mask_logits.shape[3]:
        raise ValueError(f"masks must be square, got logits of shape {tuple(pred_mask_logits.shape)}")
    present = [found for found in instances if len(found) > 0]
    if not present:
        return pred_mask_logits.sum() * 0.0
    side = pred_mask_logits.shape[2]
    targets = torch.cat(  # (R, M, M)
        [
            found.gt_masks.crop_and_resize(found.proposal_boxes.tensor, side).to(pred_mask_logits.device)
            for found in present
        ]
    )
    logits = _of_class(pred_mask_logits, [found.gt_classes for found in present])[:, 0]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if vis_period > 0 and on_picture is not None:
        on_picture("Left: mask prediction. Right: ground truth", _side_by_side(logits.detach(), targets))
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="mean")


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Give detections the masks of their classes.

    Args:
        pred_mask_logits: ``(R, C, M, M)``.
        pred_instances: detections, R in all, with ``pred_classes``. They gain ``pred_masks``: ``(R_i, 1, M, M)``
            probabilities.
    """
    if len(pred_instances) == 0:
        return
    logits = _of_class(pred_mask_logits, [found.pred_classes for found in pred_instances])
    masks = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
    counts = [found.pred_classes.shape[0] for found in pred_instances]
    for found, own in zip(pred_instances, masks.split(counts), strict=True):
        found.pred_masks = own


def _of_class(logits: Tensor, classes: Sequence[Tensor]) -> Tensor:
    """``(R, C, M, M)`` to ``(R, 1, M, M)``."""
    if logits.shape[1] == 1:
        return logits
    wanted = torch.cat(list(classes))
    return logits[torch.arange(wanted.shape[0], device=logits.device), wanted][:, None]


def _side_by_side(logits: Tensor, targets: Tensor) -> Tensor:
    """Up to ``SHOWN_MASKS`` rows of predicted and wanted masks, as a picture."""
    pair = torch.cat([logits[:SHOWN_MASKS].sigmoid(), targets[:SHOWN_MASKS].to(logits)], dim=2)  # (n, M, 2M)
    rows = F.interpolate(pair[None], size=(SHOWN_SIZE, 2 * SHOWN_SIZE), mode="nearest")[0]
    return (rows.flatten(0, 1) * 255).to(torch.uint8).cpu().expand(3, -1, -1)


class BaseMaskRCNNHead(DrawsTraining, nn.Module):
    """Losses and inference of a mask head; a subclass gives ``layers``.

    Args:
        loss_weight: factor of the loss.
        vis_period: every so many training steps a picture goes to ``on_picture``, see ``DrawsTraining``; 0 never.
    """

    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.vis_period = checked_period(vis_period)

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Losses for proposals that carry ground truth (``gt_classes``), masks for detections, in any mode.

        Args:
            x: ``(R, C, H, W)`` region features.
            instances: the R regions, per image; see ``mask_rcnn_loss`` and ``mask_rcnn_inference``.

        Returns:
            ``{"loss_mask": ...}``, or new ``Instances`` with ``pred_masks``.
        """
        x = self.layers(x)
        if carry_ground_truth(instances):
            due = self.vis_period if self._picture_is_due() else 0
            loss = mask_rcnn_loss(x, instances, due, on_picture=self.on_picture)
            return {"loss_mask": loss * self.loss_weight}
        found = [copy(one) for one in instances]
        mask_rcnn_inference(x, found)
        return found

    def layers(self, x: Tensor) -> Tensor:
        """``(R, C, H, W)`` features to ``(R, classes or 1, M, M)`` logits."""
        raise NotImplementedError


class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):
    """3x3 convolutions, a transposed one that doubles the size, and a 1x1 one for the logits.

    Args:
        input_shape: of the pooled features.
        num_classes: masks a region; 1 for one mask that fits any class.
        conv_dims: channels of the 3x3 convolutions and, last, of the transposed one.
        conv_norm: normalisation of the 3x3 convolutions, see ``hydet.layers.get_norm``.
        **kwargs: those of ``BaseMaskRCNNHead``.

    Source: He et al. 2017 (arXiv:1703.06870), figure 4 (right).
    """

    def __init__(
        self,
        *,
        input_shape: ShapeSpec,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str | Callable[[int], nn.Module] | None = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(conv_dims) == 0:
            raise ValueError("MaskRCNNConvUpsampleHead needs conv_dims; the last is that of the upsampling")
        if input_shape.channels is None:
            raise ValueError(f"input_shape must say how many channels there are, got {input_shape}")
        self.num_classes = num_classes
        channels = input_shape.channels
        for k, dim in enumerate(conv_dims[:-1], start=1):
            conv = Conv2d(
                channels,
                dim,
                kernel_size=3,
                padding=1,
                bias=not conv_norm,
                norm=get_norm(conv_norm, dim),
                activation=nn.ReLU(inplace=True),
            )
            c2_msra_fill(conv)
            self.add_module(f"mask_fcn{k}", conv)
            channels = dim
        deconv = ConvTranspose2d(channels, conv_dims[-1], kernel_size=2, stride=2)
        c2_msra_fill(deconv)
        predictor = Conv2d(conv_dims[-1], num_classes, kernel_size=1)
        nn.init.normal_(predictor.weight, std=0.001)
        nn.init.zeros_(predictor.bias)  # type: ignore[arg-type]
        self.add_module("deconv", deconv)
        self.add_module("deconv_relu", nn.ReLU(inplace=True))
        self.add_module("predictor", predictor)

    def layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x
