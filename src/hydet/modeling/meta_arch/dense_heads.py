"""Heads that predict at every position of every feature map, with the same weights on all levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hydet.layers import CycleBatchNormList, ShapeSpec, get_norm
from hydet.modeling.class_rows import ClassRows
from hydet.modeling.protocols import AnchorGenerator, BackboneProtocol

__all__ = ["FCOSHead", "RetinaNetHead"]

Norm = str | Callable[[int], nn.Module]


@runtime_checkable
class SizedDenseHead(Protocol):
    """A dense head that declares its numbers of classes and anchors, such as ``RetinaNetHead``.

    Attributes:
        num_classes: number of foreground classes.
        num_anchors: number of anchors per cell.
    """

    num_classes: int
    num_anchors: int


class RetinaNetHead(nn.Module):
    """Head of RetinaNet: one stack of convolutions for classes and one for boxes, shared by all levels.

    Args:
        input_shape: shape of each feature map; all have equally many channels.
        num_classes: number of foreground classes.
        num_anchors: number of anchors per cell.
        conv_dims: output channels of the convolutions of either stack.
        norm: see ``get_norm``. ``BN`` and ``SyncBN`` keep statistics per level and share the affine parameters, since
            the distributions of the levels differ.
        prior_prob: probability of each class at initialization. It is small because nearly all anchors are background;
            with 0.5, their loss would dominate the first steps and make training unstable.

    Raises:
        ValueError: if channels differ between levels, or ``prior_prob`` is not a probability.

    Source: Lin et al. 2017 (arXiv:1708.02002), section 4.
    """

    float32_layers: tuple[str, ...] = ("bbox_pred",)  # reduced precision would move boxes
    # The few layers between features and results add little to the errors of a whole backbone.
    tolerates_rounding = True

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
        level_channels = {shape.channels for shape in input_shape}
        if len(level_channels) != 1:
            raise ValueError(
                f"{type(self).__name__} shares weights, so levels need equal channels, got {level_channels}"
            )
        if not 0 < prior_prob < 1:
            raise ValueError(f"prior_prob must lie in (0, 1), got {prior_prob}")
        self.num_levels = len(input_shape)
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        channels = [_require_channels(level_channels.pop()), *conv_dims]
        self.cls_subnet = self._make_subnet(channels, norm)
        self.bbox_subnet = self._make_subnet(channels, norm)
        self.cls_score = nn.Conv2d(channels[-1], num_anchors * num_classes, kernel_size=3, padding=1)
        self.bbox_pred = nn.Conv2d(channels[-1], num_anchors * 4, kernel_size=3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                _initialize(layer)
        _initialize(self.cls_score, bias=-math.log((1 - prior_prob) / prior_prob))

    @property
    def class_rows(self) -> dict[str, ClassRows]:
        """See ``hydet.modeling.class_rows``."""
        return {"cls_score": ClassRows(self.num_classes, groups=self.num_anchors)}

    def _make_subnet(self, channels: Sequence[int], norm: Norm) -> nn.Sequential:
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
        """Predict classes and deltas of every anchor.

        Args:
            features: per level, ``(N, C, H, W)``.

        Returns:
            Per level, ``(N, A * num_classes, H, W)`` logits and ``(N, A * 4, H, W)`` deltas; in the
            second axis the anchor varies slowest.
        """
        classes, boxes = self._run_subnets(features)
        return [self.cls_score(x) for x in classes], [self.bbox_pred(x) for x in boxes]

    def _run_subnets(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the features of each level that classes and boxes are predicted from."""
        if len(features) != self.num_levels:
            raise ValueError(
                f"{type(self).__name__} was built for {self.num_levels} levels, got {len(features)} feature maps"
            )
        boxes = [self.bbox_subnet(x) for x in features]
        return [self.cls_subnet(x) for x in features], boxes


class FCOSHead(RetinaNetHead):
    """Head of FCOS: a ``RetinaNetHead`` with one anchor per cell that also predicts the centerness of each cell.

    Args:
        input_shape: see ``RetinaNetHead``.
        conv_dims: see ``RetinaNetHead``.
        centerness_branch: ``box`` or ``class``, the branch whose features the centerness is computed from.
        scale_per_level: multiply the deltas of each level by a learned number, ``scales``.
        **kwargs: other arguments of ``RetinaNetHead``, without ``num_anchors``.

    Raises:
        ValueError: if ``centerness_branch`` is unknown, or an argument of ``RetinaNetHead`` is wrong.

    Source: Tian et al. 2019 (arXiv:1904.01355), figure 2. The paper predicts the centerness on the branch of the classes
    and scales each level; its authors later moved the centerness to the branch of the boxes (arXiv:2006.09214).
    """

    float32_layers = ("bbox_pred", "ctrness")

    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        conv_dims: Sequence[int],
        centerness_branch: str = "box",
        scale_per_level: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_shape=input_shape, conv_dims=conv_dims, num_anchors=1, **kwargs)
        if centerness_branch not in ("box", "class"):
            raise ValueError(f"centerness_branch must be 'box' or 'class', got {centerness_branch!r}")
        self.centerness_branch = centerness_branch
        self.scales = nn.Parameter(torch.ones(self.num_levels)) if scale_per_level else None
        self.ctrness = nn.Conv2d(self.bbox_pred.in_channels, 1, kernel_size=3, padding=1)
        _initialize(self.ctrness)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # type: ignore[override]
        """Predict classes, deltas and centerness of every cell.

        Args:
            features: per level, ``(N, C, H, W)``.

        Returns:
            Per level, ``(N, num_classes, H, W)`` logits, ``(N, 4, H, W)`` deltas and ``(N, 1, H, W)`` centerness
            logits.
        """
        classes, boxes = self._run_subnets(features)
        deltas = [self.bbox_pred(x) for x in boxes]
        if self.scales is not None:
            deltas = [delta * scale for delta, scale in zip(deltas, self.scales, strict=True)]
        central = boxes if self.centerness_branch == "box" else classes
        return [self.cls_score(x) for x in classes], deltas, [self.ctrness(x) for x in central]


def check_head(head: nn.Module, num_classes: int, anchor_generator: AnchorGenerator) -> None:
    """Check that a head predicts for the classes and anchors of its model. Heads that declare neither pass.

    Raises:
        ValueError: if a number differs.
    """
    if not isinstance(head, SizedDenseHead):
        return
    if head.num_classes != num_classes:
        raise ValueError(f"head predicts {head.num_classes} classes, the model has num_classes={num_classes}")
    counts = set(anchor_generator.num_anchors)
    if counts != {head.num_anchors}:
        raise ValueError(
            f"head predicts for {head.num_anchors} anchors per cell, anchor_generator makes {counts}"
        )


def _require_channels(channels: int | None) -> int:
    if channels is None:
        raise ValueError("input_shape must state the number of channels")
    return channels


def _initialize(conv: nn.Conv2d, bias: float = 0.0) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)


def get_level_shapes(backbone: BackboneProtocol, names: Sequence[str] | None) -> dict[str, ShapeSpec]:
    """Return the shapes of the named feature maps; by default all, from the smallest stride to the largest.

    Raises:
        ValueError: if the backbone does not produce one of them.
    """
    shapes = backbone.output_shape()
    if names is None:
        names = sorted(shapes, key=lambda name: shapes[name].stride or 0)
    missing = [name for name in names if name not in shapes]
    if missing:
        raise ValueError(f"head_in_features has {missing}; the backbone produces {list(shapes)}")
    return {name: shapes[name] for name in names}
