"""``optimize``: prepare a model for fast inference."""

from __future__ import annotations

import warnings
from typing import Literal, TypeVar, get_args

import torch
from torch import nn

from hydet.layers.winograd_conv import WinogradConv2d
from hydet.modeling.meta_arch import MetaArchitecture
from hydet.modeling.roi_heads import MaskRCNNConvUpsampleHead

from .norm_folding import fold_norms
from .reduced_precision import has_fast_bfloat16, to_bfloat16
from .training import channels_last_input

__all__ = ["InferenceMode", "check_inference_mode", "optimize"]

InferenceMode = Literal["exact", "fast", "bf16"]
_Model = TypeVar("_Model", bound=nn.Module)


def check_inference_mode(mode: str) -> InferenceMode:
    """Return the mode if it is known.

    Raises:
        ValueError: if it is not.
    """
    for known in get_args(InferenceMode):
        if mode == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"inference must be one of {', '.join(get_args(InferenceMode))}, got {mode!r}")


def optimize(model: _Model, inference: InferenceMode = "fast", *, compile: bool = False) -> _Model:
    """Prepare a model for fast inference, in place; it can no longer be trained.

    ``"fast"`` folds constant batch norms into convolutions, stores weights and feature maps channels last, and on a CPU
    computes wide 3 x 3 convolutions by Winograd's algorithm (:func:`hydet.kernels.winograd_conv2d`) and masks only for
    the predicted class. Results equal those of the exact model up to rounding: boxes within 1e-3 pixels and scores
    within 1e-4, unless scores are so close that rounding changes their order. ``"bf16"`` folds norms, stores channels
    last, and computes the backbone and the heads in bfloat16, on a CPU those of RetinaNet and FCOS by Winograd's
    algorithm. The first layer of a ResNet, the layers that predict box deltas, and all work on boxes, scores and
    keypoints stay in float32. With a ResNet-18, 95 of 100 detections have boxes within 0.5% of the longer side and
    scores within 0.02 (C4 and DC5: 2% and 0.06); rounding errors grow with the number of layers, and detections
    near the threshold may change. ``"exact"`` changes nothing.

    Args:
        model: a model of ``hydet.modeling``, or any module. It is put into evaluation mode.
        inference: ``"exact"``, ``"fast"`` or ``"bf16"``.
        compile: compile the tensor core (``MetaArchitecture.inference_padded``) as one graph at its first use. Each
            padded size compiles once.

    Returns:
        ``model``.

    Raises:
        ValueError: if ``inference`` is unknown.
        TypeError: if ``compile`` is set and the model or one of its parts has no tensor core.

    Warns:
        UserWarning: if the processor has no bfloat16 instructions, which makes ``"bf16"`` slower than ``"fast"``.
    """
    check_inference_mode(inference)
    model.eval()
    if inference != "exact":
        fold_norms(model)
        model.to(memory_format=torch.channels_last)
        backbone = getattr(model, "backbone", None)
        if isinstance(backbone, nn.Module):
            backbone.register_forward_pre_hook(channels_last_input)
    if inference == "fast":
        _use_winograd(model)
        for module in model.modules():
            if isinstance(module, MaskRCNNConvUpsampleHead):
                module.predicts_class_only = True
    if inference == "bf16":
        for head in model.modules():
            if getattr(head, "tolerates_rounding", False):
                _use_winograd(head, bfloat16=True)
        device = next(model.parameters()).device
        if not has_fast_bfloat16(device):
            warnings.warn(
                f"the {device.type} of this machine has no bfloat16 instructions: inference=bf16 is slower than "
                "inference=fast here",
                stacklevel=2,
            )
        to_bfloat16(model)
    if compile:
        if not isinstance(model, MetaArchitecture):
            raise TypeError(f"{type(model).__name__} has no tensor core to compile; it is not a hydet model")
        model.compile_core()
    return model


def _use_winograd(model: nn.Module, *, bfloat16: bool = False) -> None:
    """Convert the convolutions of a model that gain from it."""
    for module in model.modules():
        if WinogradConv2d.fits(module, training=False, bfloat16=bfloat16):
            WinogradConv2d.convert(module).prepare_inference()
