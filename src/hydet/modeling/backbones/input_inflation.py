"""Adapt the first convolution of a network for RGB images to another number of channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["inflate_input_weights"]


def inflate_input_weights(
    state_dict: Mapping[str, Tensor], in_channels: int, *, key: str | None = None
) -> dict[str, Tensor]:
    """Adapt the first convolution of a state dict to another number of input channels.

    The sum of each filter over its input channels does not change, so an image with equal channels gives the same
    activations as a gray RGB image. More than three channels repeat the RGB weights in order, divided by the number of
    repetitions. Fewer channels get equal shares of the sum.

    Args:
        state_dict: state dict of a network for RGB images; not modified.
        in_channels: channels of the new images.
        key: name of the weight of the first convolution; by default the first four-dimensional weight with three
            input channels.

    Returns:
        A new state dict. It shares all tensors with ``state_dict``, except the weight if that had to be adapted.

    Raises:
        ValueError: if the weight does not exist, or ``in_channels`` is less than 1.
    """
    if in_channels < 1:
        raise ValueError(f"images have at least one channel, got in_channels={in_channels}")
    if key is None:
        names = [name for name, w in state_dict.items() if w.ndim == 4 and w.shape[1] == 3]
        if not names:
            raise ValueError(
                "no weight of shape (out_channels, 3, height, width) in the state dict; pass its name as key"
            )
        key = names[0]
    elif key not in state_dict:
        raise ValueError(f"the state dict has no weight {key!r}")
    return {**state_dict, key: inflate_weight(state_dict[key], in_channels)}


def inflate_weight(weight: Tensor, in_channels: int) -> Tensor:
    """Map ``(O, C, h, w)`` to ``(O, in_channels, h, w)`` with the same sum over the second axis."""
    num_channels = weight.shape[1]
    if in_channels == num_channels:
        return weight
    if in_channels < num_channels:
        total = weight.float().sum(1, keepdim=True) / in_channels
        return total.expand(-1, in_channels, -1, -1).to(weight.dtype).contiguous()
    source = torch.arange(in_channels, device=weight.device) % num_channels
    repetitions = torch.bincount(source, minlength=num_channels)[source].view(1, -1, 1, 1)
    return (weight.float()[:, source] / repetitions).to(weight.dtype)


def replace_input_convolution(model: nn.Module, in_channels: int) -> None:
    """Replace the first convolution of ``model`` by one with ``in_channels`` and inflated weights.

    Raises:
        ValueError: if the model has no convolution, or the first one is grouped.
    """
    first = next(((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution to adapt to in_channels")
    name, conv = first
    if conv.in_channels == in_channels:
        return
    if conv.groups != 1:
        raise ValueError(
            f"the first convolution of {type(model).__name__} ({name or 'the model itself'}) has groups={conv.groups}, "
            f"so its weights for {conv.in_channels} channels cannot be adapted to in_channels={in_channels}"
        )
    replacement = type(conv)(
        in_channels,
        conv.out_channels,
        kernel_size=conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        replacement.weight.copy_(inflate_weight(conv.weight, in_channels))
        if conv.bias is not None and replacement.bias is not None:
            replacement.bias.copy_(conv.bias)
    model.set_submodule(name, replacement)
