"""Base class of all backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from hydet.layers import ShapeSpec

from .activation_checkpointing import run_checkpointed

__all__ = ["Backbone", "check_out_features", "checkpoint_activations"]

M = TypeVar("M", bound=nn.Module)


class Backbone(nn.Module, ABC):
    """Base of networks that turn images into feature maps.

    A subclass implements ``forward`` and either overrides ``output_shape`` or sets the first three attributes.

    Attributes:
        _out_features: names of the feature maps, in the order of ``output_shape``.
        _out_feature_channels: channels by name.
        _out_feature_strides: input pixels per cell, by name.
        use_act_checkpoint: recompute the activations of repeated blocks in the backward pass instead of storing them;
            see ``checkpoint_activations``. None if the backbone does not support it.
    """

    _out_features: Sequence[str]
    _out_feature_channels: Mapping[str, int]
    _out_feature_strides: Mapping[str, int | None]
    use_act_checkpoint: bool | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, C, H, W)`` normalized images.

        Returns:
            ``(N, C_l, H_l, W_l)`` by name.
        """

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 accepts any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Arguments for ``ImageList.from_tensors``: ``size_divisibility`` and ``square_size``, if required."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature map."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }

    def _run(self, block: nn.Module, *args: Tensor | None) -> Tensor:
        """Apply a block, with activation checkpointing if ``use_act_checkpoint``."""
        if self.use_act_checkpoint and torch.is_grad_enabled():
            return run_checkpointed(block, *args)
        output: Tensor = block(*args)
        return output


def checkpoint_activations(module: M, *, enabled: bool = True) -> M:
    """Switch activation checkpointing of every backbone in ``module`` on or off.

    Parameter names, results and gradients do not change, and neither do random numbers. Training needs less memory and
    about a third more time, because each block runs a second time in the backward pass.

    Args:
        module: a backbone, or a module that contains backbones.
        enabled: new state of the switch.

    Returns:
        ``module`` itself.

    Raises:
        ValueError: if no backbone in ``module`` supports it.

    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    backbones = [m for m in module.modules() if isinstance(m, Backbone) and m.use_act_checkpoint is not None]
    if not backbones:
        raise ValueError(
            f"{type(module).__name__} contains no backbone with activation checkpointing; ResNet, RegNet, ViT, "
            "SwinTransformer, MViT, TimmBackbone and TorchvisionBackbone support it"
        )
    for backbone in backbones:
        backbone.use_act_checkpoint = enabled
    return module


def check_out_features(owner: str, out_features: Sequence[str], available: Sequence[str]) -> None:
    """Raise ValueError unless ``out_features`` names at least one of ``available``, and nothing else."""
    if isinstance(out_features, str):
        raise TypeError(f"{owner}: out_features must be a list of names, got the string {out_features!r}")
    unknown = [name for name in out_features if name not in available]
    if unknown or not out_features:
        raise ValueError(f"{owner}: out_features has {unknown or 'no name'}; available are {list(available)}")
