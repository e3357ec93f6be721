"""The switch that trades computation for memory in a whole model."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from .backbone import Backbone

__all__ = ["checkpoint_activations"]

M = TypeVar("M", bound=nn.Module)


def checkpoint_activations(module: M, *, enabled: bool = True) -> M:
    """Let every backbone in ``module`` recompute its blocks in the backward pass instead of storing them.

    Parameter names, results and gradients stay what they are (random numbers too); training needs less memory and
    about a third more time. Without gradients nothing changes.

    Args:
        module: a backbone, or anything that contains backbones.
        enabled: turn it on or off.

    Returns:
        ``module`` itself.

    Raises:
        ValueError: if nothing in ``module`` has such a switch.

    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    found = [m for m in module.modules() if isinstance(m, Backbone) and m.use_act_checkpoint is not None]
    if not found:
        raise ValueError(
            f"{type(module).__name__} contains no backbone with activation checkpointing; ResNet, RegNet, ViT, "
            "SwinTransformer, MViT, TimmBackbone and TorchvisionBackbone have it"
        )
    for backbone in found:
        backbone.use_act_checkpoint = enabled
    return module
