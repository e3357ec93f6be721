"""Mask heads: predict a binary mask for each region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hydet.layers import Conv2d, ConvTranspose2d, ShapeSpec, c2_msra_fill, get_norm
from hydet.modeling.class_rows import ClassRows
from hydet.modeling.compilable_layers import CompilableLayers
from hydet.modeling.selection.foreground import carry_ground_truth
from hydet.structures import Instances, Losses
from hydet.structures.precision import at_least_float32

__all__ = [
    "BaseMaskRCNNHead",
    "MaskHeadEnsemble",
    "MaskRCNNConvUpsampleHead",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
]

HIDDEN_SIZE = 2_000_000  # numbers of upsampled features at a time: 8 MB

# R regions over all images, C channels (one mask per class, or 1 mask for all classes), M x M cells per mask.


def mask_rcnn_loss(pred_mask_logits: Tensor, instances: Sequence[Instances], vis_period: int = 0) -> Tensor:
    """Compute the mean binary cross-entropy of the mask of the ground-truth class.

    Args:
        pred_mask_logits: ``(R, C, M, M)``.
        instances: foreground proposals, R over all images, with ``proposal_boxes``, ``gt_classes`` and ``gt_masks``.
            An image without foreground may lack the fields.
        vis_period: part of the documented signature; not used, since models do not draw.

    Returns:
        A scalar. Without regions it is 0 and connected to ``pred_mask_logits``.

    Raises:
        ValueError: if the masks are not square.

    Source: He et al. 2017 (arXiv:1703.06870), section 3.
    """
    if pred_mask_logits.shape[2] != pred_mask_logits.shape[3]:
        raise ValueError(f"masks must be square, got logits of shape {tuple(pred_mask_logits.shape)}")
    nonempty = [instances_i for instances_i in instances if len(instances_i) > 0]
    if not nonempty:
        return pred_mask_logits.sum() * 0.0
    mask_size = pred_mask_logits.shape[2]
    targets = torch.cat(  # (R, M, M)
        [
            instances_i.gt_masks.crop_and_resize(instances_i.proposal_boxes.tensor, mask_size).to(
                pred_mask_logits.device
            )
            for instances_i in nonempty
        ]
    )
    gt_classes = [instances_i.gt_classes for instances_i in nonempty]
    logits = _select_class(pred_mask_logits, gt_classes)[:, 0]  # (R, C, M, M) -> (R, M, M)
    logits = at_least_float32(logits)
    # A sigmoid per class instead of a softmax over classes: the box head decides the class, so masks of different
    # classes do not have to compete. He et al. 2017, table 2b: 5.5 points of mask AP over a softmax.
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="mean")


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Add the masks of the predicted classes to detections, in place.

    Args:
        pred_mask_logits: ``(R, C, M, M)``.
        pred_instances: detections, R over all images, with ``pred_classes``. They gain ``pred_masks``,
            ``(R_i, 1, M, M)`` probabilities.
    """
    if len(pred_instances) == 0:
        return
    logits = _select_class(pred_mask_logits, [instances_i.pred_classes for instances_i in pred_instances])
    masks = at_least_float32(logits).sigmoid()
    counts = [instances_i.pred_classes.shape[0] for instances_i in pred_instances]
    for instances_i, masks_i in zip(pred_instances, masks.split(counts), strict=True):
        instances_i.pred_masks = masks_i


def _select_class(logits: Tensor, classes: Sequence[Tensor]) -> Tensor:
    """Select the mask of each region's class: ``(R, C, M, M)`` to ``(R, 1, M, M)``."""
    if logits.shape[1] == 1:
        return logits
    channels = torch.cat(list(classes))
    return logits[torch.arange(channels.shape[0], device=logits.device), channels][:, None]


class BaseMaskRCNNHead(CompilableLayers, ABC):
    """Losses and inference of a mask head. A subclass implements ``layers``.

    Args:
        loss_weight: factor of the loss.
        vis_period: number of training steps between logged images of predicted masks; 0 disables. The head only stores
            it; a training callback draws.

    Attributes:
        num_classes: number of masks per region; 1 for class-agnostic masks, None if the head does not declare it.

    Raises:
        ValueError: if ``vis_period`` is negative.
    """

    num_classes: int | None = None

    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0) -> None:
        super().__init__()
        if vis_period < 0:
            raise ValueError(f"vis_period counts training steps and cannot be negative, got {vis_period}")
        self.loss_weight = loss_weight
        self.vis_period = vis_period

    def forward(self, x: Tensor, instances: Sequence[Instances]) -> Losses | list[Instances]:
        """Compute losses for proposals with ground truth (``gt_classes``), masks for detections, in any mode.

        Args:
            x: ``(R, C, H, W)`` region features.
            instances: the R regions, per image; see ``mask_rcnn_loss`` and ``mask_rcnn_inference``.

        Returns:
            ``{"loss_mask": ...}``, or new ``Instances`` with ``pred_masks``.
        """
        if carry_ground_truth(instances):
            logits = self._logits_of_targets(x, instances)
            return {"loss_mask": mask_rcnn_loss(logits, instances, self.vis_period) * self.loss_weight}
        results = [copy(instances_i) for instances_i in instances]
        if results:
            logits = self.predict_logits(x, torch.cat([r.pred_classes for r in results]))
            mask_rcnn_inference(logits[:, None], results)
        return results

    def predict_logits(self, x: Tensor, classes: Tensor) -> Tensor:
        """Compute the mask logits of one class per region: ``(R, C, H, W)`` features to ``(R, M, M)`` logits."""
        return _select_class(self.layers(x), [classes])[:, 0]

    def _logits_of_targets(self, x: Tensor, instances: Sequence[Instances]) -> Tensor:
        """Compute the ``(R, C, M, M)`` or ``(R, 1, M, M)`` logits that ``mask_rcnn_loss`` needs."""
        return self.layers(x)

    @abstractmethod
    def layers(self, x: Tensor) -> Tensor:
        """Compute ``(R, C, M, M)`` mask logits from ``(R, channels, H, W)`` features, C being classes or 1."""


# ``forward`` is that of the base head; ``nn.Sequential`` only holds the layers.
class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):  # type: ignore[misc]
    """Mask head of Mask R-CNN: 3x3 convolutions, a transposed convolution of stride 2, and a 1x1 convolution.

    Args:
        input_shape: shape of the pooled features.
        num_classes: number of masks per region; 1 for class-agnostic masks.
        conv_dims: output channels of the 3x3 convolutions; the last entry is that of the transposed convolution.
        conv_norm: normalization of the 3x3 convolutions, see ``hydet.layers.get_norm``.
        **kwargs: arguments of ``BaseMaskRCNNHead``.

    Attributes:
        predicts_class_only: on a CPU, compute only the mask of the predicted class, or of the ground-truth class for the
            loss, for some regions at a time. The same numbers and gradients up to rounding, in less memory;
            ``hydet.optimize`` and ``optimize_training`` set it.

    Raises:
        ValueError: if ``conv_dims`` is empty, or ``input_shape`` has no channels.

    Source: He et al. 2017 (arXiv:1703.06870), figure 4 (right).
    """

    num_classes: int
    deconv: ConvTranspose2d
    predictor: Conv2d
    predicts_class_only = False

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
            raise ValueError(
                "MaskRCNNConvUpsampleHead: conv_dims is empty; its last entry is the width of the upsampling"
            )
        if input_shape.channels is None:
            raise ValueError(f"MaskRCNNConvUpsampleHead: input_shape needs channels, got {input_shape}")
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
        nn.init.normal_(predictor.weight, std=0.001)  # initial probabilities close to 0.5
        if predictor.bias is not None:
            nn.init.zeros_(predictor.bias)
        self.add_module("deconv", deconv)
        self.add_module("deconv_relu", nn.ReLU(inplace=True))
        self.add_module("predictor", predictor)

    @property
    def class_rows(self) -> dict[str, ClassRows]:
        """See ``hydet.modeling.class_rows``."""
        return {"predictor": ClassRows(self.num_classes)}

    def layers(self, x: Tensor) -> Tensor:
        """Compute ``(R, C, 2H, 2W)`` mask logits from ``(R, channels, H, W)`` features."""
        for layer in self:
            x = layer(x)
        return x

    def predict_logits(self, x: Tensor, classes: Tensor) -> Tensor:
        """Compute the mask logits of one class per region; see ``BaseMaskRCNNHead.predict_logits``."""
        if not self._computes_one_class(x):
            return super().predict_logits(x, classes)
        for conv in list(self)[:-3]:  # without deconv, deconv_relu and predictor
            x = conv(x)
        if self.num_classes == 1:
            classes = torch.zeros_like(classes)
        return _upsample_and_predict(x, self.deconv, self.predictor, classes)

    def _computes_one_class(self, x: Tensor) -> bool:
        return self.predicts_class_only and x.device.type == "cpu" and not torch.compiler.is_compiling()

    def _logits_of_targets(self, x: Tensor, instances: Sequence[Instances]) -> Tensor:
        if not self._computes_one_class(x) or x.shape[0] == 0:
            return super()._logits_of_targets(x, instances)
        # Images without foreground may lack the field.
        classes = torch.cat([instances_i.gt_classes for instances_i in instances if len(instances_i) > 0])
        return self.predict_logits(x, classes)[:, None]


def _upsample_and_predict(
    x: Tensor, deconv: nn.ConvTranspose2d, predictor: nn.Conv2d, classes: Tensor
) -> Tensor:
    """Apply the last layers of a mask head: a transposed convolution, a ReLU, and the filter of one class per region.

    A transposed convolution of stride 2 with 2 x 2 filters gives every cell four cells of its own, so it is one matrix
    product, and so is the filter of the class. The upsampled features of some regions at a time stay in the cache; the
    backward pass computes them again, which costs less than keeping and reading those of all regions.

    Args:
        x: ``(R, C, H, W)``.
        deconv: C to K channels.
        predictor: K channels to classes.
        classes: ``(R,)``.

    Returns:
        ``(R, 2H, 2W)`` logits.
    """
    num_regions, channels, height, width = x.shape
    num_hidden, cells = deconv.weight.shape[1], height * width
    weight = deconv.weight.permute(0, 2, 3, 1).reshape(channels, 4 * num_hidden)
    assert deconv.bias is not None
    assert predictor.bias is not None
    bias = deconv.bias.repeat(4)
    filters = predictor.weight.flatten(1)[classes, :, None]  # (R, K, 1)
    rows = x.permute(0, 2, 3, 1).reshape(num_regions * cells, channels)
    step = max(1, HIDDEN_SIZE // (4 * cells * num_hidden))
    if torch.is_grad_enabled():
        predict = partial(checkpoint, _predict_part, use_reentrant=False, preserve_rng_state=False)
        by_region = rows.view(num_regions, cells, channels)
        parts = zip(by_region.split(step), filters.split(step), strict=True)
        logits = torch.cat([predict(*part, weight, bias) for part in parts])
    else:
        memory = x.new_empty(min(step, num_regions) * cells, 4 * num_hidden)
        logits = x.new_empty(num_regions, 4 * cells, 1)
        for start in range(0, num_regions, step):
            part = rows[start * cells : (start + step) * cells]
            hidden = torch.addmm(bias, part, weight, out=memory[: part.shape[0]]).relu_()
            hidden = hidden.view(-1, 4 * cells, num_hidden)
            torch.bmm(hidden, filters[start : start + step], out=logits[start : start + step])
    logits = logits + predictor.bias[classes, None, None]
    quads = logits.view(num_regions, height, width, 2, 2)
    return quads.transpose(2, 3).reshape(num_regions, 2 * height, 2 * width)


def _predict_part(x: Tensor, filters: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``(R, 4HW, 1)`` logits from ``(R, HW, C)`` features; see ``_upsample_and_predict``."""
    num_regions, cells, _ = x.shape
    hidden = F.linear(x, weight.t(), bias).relu_()
    return hidden.view(num_regions, 4 * cells, filters.shape[1]) @ filters


class MaskHeadEnsemble(BaseMaskRCNNHead):
    """Mean probability of several mask heads, such as the heads of the stages of a cascade.

    Args:
        heads: heads with the same input and output, or partials of heads, which are called with ``input_shape``.
        input_shape: shape of the pooled features; only partials need it.
        **kwargs: arguments of ``BaseMaskRCNNHead``.

    Raises:
        ValueError: if there is no head, or heads predict different classes.

    Source: Cai & Vasconcelos 2019 (arXiv:1906.09756), section 5.3.
    """

    def __init__(
        self,
        *,
        heads: Sequence[BaseMaskRCNNHead | Callable[..., BaseMaskRCNNHead]],
        input_shape: ShapeSpec | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        built = [h if isinstance(h, BaseMaskRCNNHead) else h(input_shape=input_shape) for h in heads]
        counts = {head.num_classes for head in built}
        if len(counts) != 1:
            raise ValueError(f"MaskHeadEnsemble needs heads with equal classes, got num_classes {counts}")
        self.heads = nn.ModuleList(built)
        self.num_classes = counts.pop()

    def layers(self, x: Tensor) -> Tensor:
        """Compute the ``(R, C, M, M)`` logits of the mean probabilities of the heads."""
        probabilities = [at_least_float32(cast(BaseMaskRCNNHead, h).layers(x)).sigmoid() for h in self.heads]
        mean = torch.stack(probabilities).mean(dim=0)
        return torch.logit(mean, eps=1e-7)  # probabilities of 0 and 1 have no finite logit
