"""Head of an RPN: a small convolutional network on each feature map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import Conv2d

__all__ = ["StandardRPNHead"]


class StandardRPNHead(nn.Module):
    """Head of an RPN: 3x3 convolutions, then objectness and box deltas of every anchor of a cell.

    Args:
        in_channels: number of channels of every feature map.
        num_anchors: number of anchors per cell.
        box_dim: numbers per box: 4, or 5 for rotated boxes.
        conv_dims: output channels of each hidden convolution; -1 keeps the number of its input channels.

    Attributes:
        joins_predictions: predict objectness and deltas with one convolution. The same numbers and gradients up to
            rounding, with one pass less over the hidden maps; ``optimize_training`` sets it.

    Raises:
        ValueError: if ``conv_dims`` is empty or contains a number that is neither positive nor -1.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.1.
    """

    # Reduced precision would move boxes and reorder scores.
    float32_layers = ("objectness_logits", "anchor_deltas")
    joins_predictions = False

    def __init__(
        self, *, in_channels: int, num_anchors: int, box_dim: int = 4, conv_dims: Sequence[int] = (-1,)
    ) -> None:
        super().__init__()
        if len(conv_dims) == 0 or any(dim <= 0 and dim != -1 for dim in conv_dims):
            raise ValueError(f"conv_dims must be at least one positive number or -1, got {list(conv_dims)}")
        self.num_anchors = num_anchors
        self.box_dim = box_dim
        channels = [in_channels]
        for dim in conv_dims:
            channels.append(channels[-1] if dim == -1 else dim)
        convs = [
            Conv2d(before, after, kernel_size=3, padding=1, activation=nn.ReLU(inplace=True))
            for before, after in pairwise(channels)
        ]
        if len(convs) == 1:
            self.conv: nn.Module = convs[0]
        else:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.objectness_logits = nn.Conv2d(channels[-1], num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(channels[-1], num_anchors * box_dim, kernel_size=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict objectness and deltas of the anchors of every level.

        Args:
            features: per level, ``(N, C, H, W)``.

        Returns:
            Per level, ``(N, A, H, W)`` logits and ``(N, A * box_dim, H, W)`` deltas; in the second axis
            the anchor varies slowest.
        """
        # Level by level, so that the backward pass holds the gradient of one hidden map at a time.
        predictions = [self._predict(self.conv(x)) for x in features]
        return [logits for logits, _ in predictions], [deltas for _, deltas in predictions]

    def _predict(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        objectness, deltas = self.objectness_logits, self.anchor_deltas
        if not self.joins_predictions:
            return objectness(hidden), deltas(hidden)
        assert objectness.bias is not None
        assert deltas.bias is not None
        weight = torch.cat([objectness.weight, deltas.weight])
        joined = F.conv2d(hidden, weight, torch.cat([objectness.bias, deltas.bias]))
        return joined[:, : self.num_anchors], joined[:, self.num_anchors :]
