"""``optimize_training`` and ``compile_training``: the same training in a cheaper order of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hydet.layers import Conv2d
from hydet.layers.winograd_conv import WinogradConv2d
from hydet.modeling.compilable_layers import CompilableLayers
from hydet.modeling.proposal_generators.rpn_head import StandardRPNHead
from hydet.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead

__all__ = ["compile_training", "optimize_training"]

_Model = TypeVar("_Model", bound=nn.Module)
# Heads that map tensors to tensors, by the names that models give them: of dense detectors, proposal networks and regions.
_COMPILED_HEADS = ("head", "rpn_head", "box_head", "res5")


def optimize_training(model: _Model) -> _Model:
    """Prepare a model for fast training, in place. Names and shapes of the state dict stay the same.

    Frozen batch norms scale the weights of their convolutions instead of feature maps, which is the same function with
    the same gradients, and saves a pass over each feature map and its copy for the backward pass. Weights and feature
    maps are stored channels last, and 3 x 3 convolutions on a CPU use Winograd's algorithm
    (:func:`hydet.kernels.winograd_conv2d`). On a CPU, mask heads compute only the masks of the ground-truth classes.
    Losses and gradients equal those of the exact model up to rounding (relative difference below 1e-4).

    Args:
        model: a model of ``hydet.modeling``, or any module.

    Returns:
        ``model``.
    """
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.scales_weight = True
        if WinogradConv2d.fits(module, training=True):
            WinogradConv2d.convert(module)
        if isinstance(module, MaskRCNNConvUpsampleHead):
            module.predicts_class_only = True
        if isinstance(module, StandardRPNHead):
            module.joins_predictions = True
    model.to(memory_format=torch.channels_last)
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        backbone.register_forward_pre_hook(channels_last_input)
    return model


def compile_training(model: _Model, *, backend: str | Callable[..., Any] = "inductor") -> _Model:
    """Compile the backbone and the heads for training, in place, each at its first use.

    Each becomes one graph forward and one backward, for all image sizes after the second one. Matching, sampling and
    losses, which depend on the number of objects, are not compiled. State dicts, copies and pickles of the model stay as
    they are.

    Args:
        model: a model of ``hydet.modeling``; compile it after ``optimize_training``.
        backend: see ``torch.compile``.

    Returns:
        ``model``.
    """
    for part in _compiled_parts(model):
        part.compile(backend=backend)
    for module in model.modules():
        if isinstance(module, CompilableLayers):
            module.compile_layers(backend=backend)
    return model


def _compiled_parts(model: nn.Module) -> Iterator[nn.Module]:
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        yield backbone
    for path, module in model.named_modules():
        if path.startswith("backbone.") or path.rpartition(".")[2] not in _COMPILED_HEADS:
            continue
        if isinstance(module, nn.ModuleList):  # the stages of a cascade
            yield from module
        else:
            yield module


def channels_last_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Store the images that a backbone receives channels last; a forward pre-hook."""
    return (args[0].contiguous(memory_format=torch.channels_last), *args[1:])
