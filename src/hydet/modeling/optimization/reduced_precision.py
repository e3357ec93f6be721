"""Conversion of a model to 16-bit numbers, but for the layers whose outputs need the precision of float32."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

__all__ = ["has_fast_bfloat16", "to_bfloat16", "to_reduced_precision"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return True if the device has instructions for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return True


def to_bfloat16(model: nn.Module) -> None:
    """Convert the parameters of a model to bfloat16, in place; see ``to_reduced_precision``."""
    to_reduced_precision(model, torch.bfloat16)


def to_reduced_precision(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert the parameters of a model to bfloat16 or float16, in place.

    The layers that a module names in ``float32_layers`` stay in float32: they predict box deltas and class scores of
    regions. A layer receives its input in its parameters precision, so the code between layers stays the same.
    """
    precise = set(_float32_layers(model))
    for module in model.modules():
        if module in precise:
            module.register_forward_pre_hook(_to_float32)
            continue
        parameters = [p for p in module.parameters(recurse=False) if p.is_floating_point()]
        for parameter in parameters:
            parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            # Statistics of norms have the precision of their weights. Other buffers, such as anchors, stay exact.
            if parameters and buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))
        if isinstance(module, _LAYERS):
            module.register_forward_pre_hook(partial(_to_dtype, dtype=dtype))


def _float32_layers(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        for name in getattr(module, "float32_layers", ()):
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Module):
                yield from layer.modules()


def _to_dtype(module: nn.Module, args: tuple[Tensor, ...], *, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (args[0].to(dtype), *args[1:])


def _to_float32(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].float(), *args[1:])
