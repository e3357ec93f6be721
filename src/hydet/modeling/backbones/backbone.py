"""What every network that turns images into feature maps has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.layers import ShapeSpec

from .recomputation import checkpointed

__all__ = ["Backbone"]


class Backbone(nn.Module, ABC):
    """Base of all backbones: images in, feature maps by name out.

    A subclass implements ``forward`` and either overrides ``output_shape`` or fills the three attributes below.

    Attributes:
        _out_features: names of the feature maps, in the order of ``output_shape``.
        _out_feature_channels: channels by name.
        _out_feature_strides: input pixels a cell, by name.
        use_act_checkpoint: recompute the activations of repeated blocks in the backward pass instead of keeping
            them; see ``checkpoint_activations``. ``None`` means that the backbone has no such switch.
    """

    _out_features: Sequence[str]
    _out_feature_channels: Mapping[str, int]
    _out_feature_strides: Mapping[str, int | None]
    use_act_checkpoint: bool | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, C, H, W)`` normalised images.

        Returns:
            ``(N, C_l, H_l, W_l)`` by name.
        """

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 if any size will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Wishes for ``ImageList.from_tensors``: ``size_divisibility`` and ``square_size``, where there are any."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature map."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        """Apply a block, without keeping what happens inside it if ``use_act_checkpoint``."""
        if self.use_act_checkpoint and torch.is_grad_enabled():
            return checkpointed(block, *args)
        return block(*args)


def check_out_features(owner: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless ``wanted`` names at least one of ``known``, and only those."""
    if isinstance(wanted, str):
        raise TypeError(f"{owner}: out_features must be a list of names, got the string {wanted!r}")
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"{owner}: out_features has {unknown or 'no name'}; there are {list(known)}")
