"""Heads that predict at every place of every feature map, with the same weights on all levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from hydet.layers import CycleBatchNormList, ShapeSpec, get_norm

__all__ = ["FCOSHead", "RetinaNetHead"]

Norm = str | Callable[[int], nn.Module]


class RetinaNetHead(nn.Module):
    """One stack of convolutions for classes and one for boxes.

    Args:
        input_shape: of every feature map; all have equally many channels.
        num_classes: foreground classes.
        num_anchors: anchors a cell.
        conv_dims: output channels of the convolutions of either stack.
        norm: see ``get_norm``. ``BN`` and ``SyncBN`` keep statistics of each level and share the affine parameters,
            since levels differ in their distributions.
        prior_prob: probability of a class at the start, small because nearly everything is background.

    Raises:
        ValueError: if channels differ between levels, or ``prior_prob`` is not a probability.

    Source: Lin et al. 2017 (arXiv:1708.02002), section 4.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: Sequence[int],
        norm: Norm = "",
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__()
        found = {shape.channels for shape in input_shape}
        if len(found) != 1:
            raise ValueError(
                f"{type(self).__name__} shares weights, so levels need equal channels, got {found}"
            )
        if not 0 < prior_prob < 1:
            raise ValueError(f"prior_prob must lie in (0, 1), got {prior_prob}")
        self.num_levels = len(input_shape)
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        channels = [_known(found.pop()), *conv_dims]
        self.cls_subnet = self._subnet(channels, norm)
        self.bbox_subnet = self._subnet(channels, norm)
        self.cls_score = nn.Conv2d(channels[-1], num_anchors * num_classes, kernel_size=3, padding=1)
        self.bbox_pred = nn.Conv2d(channels[-1], num_anchors * 4, kernel_size=3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                _initialize(layer)
        _initialize(self.cls_score, bias=-math.log((1 - prior_prob) / prior_prob))

    def _subnet(self, channels: Sequence[int], norm: Norm) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers.append(nn.Conv2d(before, after, kernel_size=3, padding=1))
            if norm in ("BN", "SyncBN"):
                bn_class = nn.BatchNorm2d if norm == "BN" else nn.SyncBatchNorm
                layers.append(
                    CycleBatchNormList(length=self.num_levels, bn_class=bn_class, num_features=after)
                )
            elif (layer := get_norm(norm, after)) is not None:
                layers.append(layer)
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict for every anchor.

        Args:
            features: per level, ``(N, C, H, W)``.

        Returns:
            Per level, ``(N, A * num_classes, H, W)`` logits and ``(N, A * 4, H, W)`` deltas, the anchor changing
            slowest.
        """
        logits, deltas, _ = self._predict(features)
        return logits, deltas

    def _predict(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Logits, deltas and what the deltas were computed from."""
        if len(features) != self.num_levels:
            raise ValueError(
                f"{type(self).__name__} was made for {self.num_levels} levels, got {len(features)} feature maps"
            )
        hidden = [self.bbox_subnet(x) for x in features]
        logits = [self.cls_score(self.cls_subnet(x)) for x in features]
        return logits, [self.bbox_pred(x) for x in hidden], hidden


class FCOSHead(RetinaNetHead):
    """``RetinaNetHead`` for one anchor a cell that also predicts how central a cell is in its object.

    Args:
        input_shape: see ``RetinaNetHead``.
        conv_dims: likewise.
        **kwargs: its other arguments, without ``num_anchors``.

    Levels share the scale of their deltas too; the paper's learnt scale of each level is not there.

    Source: Tian et al. 2019 (arXiv:1904.01355), figure 2, with centerness on the branch of the boxes.
    """

    def __init__(self, *, input_shape: Sequence[ShapeSpec], conv_dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(input_shape=input_shape, conv_dims=conv_dims, num_anchors=1, **kwargs)
        self.ctrness = nn.Conv2d(self.bbox_pred.in_channels, 1, kernel_size=3, padding=1)
        _initialize(self.ctrness)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # type: ignore[override]
        """Predict for every cell.

        Args:
            features: per level, ``(N, C, H, W)``.

        Returns:
            Per level, ``(N, num_classes, H, W)`` logits, ``(N, 4, H, W)`` deltas and ``(N, 1, H, W)`` centerness
            logits.
        """
        logits, deltas, hidden = self._predict(features)
        return logits, deltas, [self.ctrness(x) for x in hidden]


def _known(channels: int | None) -> int:
    if channels is None:
        raise ValueError("input_shape must say how many channels feature maps have")
    return channels


def _initialize(conv: nn.Conv2d, bias: float = 0.0) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)
