"""Semantic branch of a panoptic feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d, ShapeSpec, c2_msra_fill, get_norm
from hydet.modeling.class_rows import ClassRows
from hydet.structures import Losses

__all__ = ["SemSegFPNHead"]


class SemSegFPNHead(nn.Module):
    """Semantic head of Panoptic FPN: convolves and upsamples every level to one stride, and classifies their sum.

    Args:
        input_shape: shapes of the levels by name; channels and stride are used.
        num_classes: number of labels: stuff classes and, in a panoptic model, one label for all things.
        conv_dims: number of channels of the convolutions.
        common_stride: stride at which the levels are added and classified.
        loss_weight: factor of the loss.
        norm: normalization of the convolutions; see ``get_norm``.
        ignore_value: label of pixels without loss.
        in_features: names of the levels in ``input_shape`` to use; all by default.

    Raises:
        ValueError: if there is no level, or one with a smaller stride than ``common_stride``.

    Source: Kirillov et al. 2019 (arXiv:1901.02446), section 3.1 and figure 3.
    """

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | Callable[[int], nn.Module] | None = None,
        ignore_value: int = -1,
        in_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if in_features is not None:
            input_shape = {name: input_shape[name] for name in in_features}
        levels = sorted(input_shape.items(), key=lambda level: level[1].stride or 0)
        if not levels:
            raise ValueError("SemSegFPNHead needs at least one level in input_shape")
        self.in_features = [name for name, _ in levels]
        self.num_classes = num_classes
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        for name, shape in levels:
            stride = shape.stride or 0
            if stride < common_stride:
                raise ValueError(
                    f"SemSegFPNHead: {name} has stride {stride}, finer than common_stride {common_stride}"
                )
            parts: list[nn.Module] = []
            for k in range(max(1, int(math.log2(stride) - math.log2(common_stride)))):
                conv = Conv2d(
                    shape.channels if k == 0 else conv_dims,
                    conv_dims,
                    kernel_size=3,
                    padding=1,
                    bias=not norm,
                    norm=get_norm(norm, conv_dims),
                    activation=F.relu,
                )
                c2_msra_fill(conv)
                parts.append(conv)
                if stride != common_stride:
                    parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(name, nn.Sequential(*parts))
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        c2_msra_fill(self.predictor)

    @property
    def class_rows(self) -> dict[str, ClassRows]:
        """See ``hydet.modeling.class_rows``."""
        return {"predictor": ClassRows(self.num_classes, has_things=False)}

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, Losses]:
        """Compute losses if targets are given, else logits.

        Args:
            features: by name, ``(B, C, H / stride, W / stride)``.
            targets: ``(B, H, W)`` class indices.

        Returns:
            ``(None, losses)`` with targets, else ``(logits, {})``: ``(B, num_classes, H, W)`` at input resolution.
        """
        predictions = self.layers(features)
        if targets is not None:
            return None, self.losses(predictions, targets)
        return self.upsample(predictions), {}

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Compute logits at the common stride: ``(B, num_classes, H / common_stride, W / common_stride)``."""
        branches = [getattr(self, name)(features[name]) for name in self.in_features]
        total = branches[0]
        for branch in branches[1:]:
            total = total + branch
        logits: Tensor = self.predictor(total)
        return logits

    def upsample(self, predictions: Tensor) -> Tensor:
        """Upsample from the common stride to input resolution, bilinearly."""
        # The classes of a pixel are compared and resized faster map by map than in channels-last order.
        return F.interpolate(
            predictions.contiguous(), scale_factor=self.common_stride, mode="bilinear", align_corners=False
        )

    def losses(self, predictions: Tensor, targets: Tensor) -> Losses:
        """Compute the mean cross-entropy over all pixels but the ignored ones; a connected zero if all are ignored.

        Args:
            predictions: logits from ``layers``. The loss is computed in float32 even under autocast.
            targets: ``(B, H, W)`` class indices or ``ignore_value``.
        """
        logits = self.upsample(predictions.float())
        total = F.cross_entropy(logits, targets.long(), reduction="sum", ignore_index=self.ignore_value)
        num_pixels = (targets != self.ignore_value).sum().clamp(min=1)
        return {"loss_sem_seg": total / num_pixels * self.loss_weight}
