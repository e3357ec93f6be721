"""Weights made for RGB, in networks for other numbers of channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["inflate_input_weights"]


def inflate_input_weights(
    state_dict: Mapping[str, Tensor], in_channels: int, *, key: str | None = None
) -> dict[str, Tensor]:
    """Fit the first convolution of a state dict to images of another number of channels.

    The sum of a filter over its input channels stays what it was, so an image whose channels are all equal gives the
    same activations as a grey image gave before. More than three channels repeat the colours in turn and share the
    weight of each; fewer share the sum of all.

    Args:
        state_dict: of a network for RGB images. It is not changed.
        in_channels: channels of the images at hand.
        key: name of the first convolution's weight; by default the first four-dimensional weight with three input
            channels.

    Returns:
        A new state dict that shares all other tensors; with three channels, all of them.

    Raises:
        ValueError: if there is no such weight.
    """
    if in_channels < 1:
        raise ValueError(f"images have at least one channel, got in_channels={in_channels}")
    if key is None:
        found = [name for name, w in state_dict.items() if w.ndim == 4 and w.shape[1] == 3]
        if not found:
            raise ValueError("no weight of shape (out_channels, 3, height, width) found; name it by key")
        key = found[0]
    elif key not in state_dict:
        raise ValueError(f"no weight is called {key!r}")
    return {**state_dict, key: inflate_weight(state_dict[key], in_channels)}


def inflate_weight(weight: Tensor, in_channels: int) -> Tensor:
    """``(O, C, h, w)`` to ``(O, in_channels, h, w)`` with the same sum over the second axis; see above."""
    colours = weight.shape[1]
    if in_channels == colours:
        return weight
    if in_channels < colours:
        total = weight.float().sum(1, keepdim=True) / in_channels
        return total.expand(-1, in_channels, -1, -1).to(weight.dtype).contiguous()
    source = torch.arange(in_channels, device=weight.device) % colours
    sharing = torch.bincount(source, minlength=colours)[source].view(1, -1, 1, 1)
    return (weight.float()[:, source] / sharing).to(weight.dtype)


def replace_input_convolution(model: nn.Module, in_channels: int) -> None:
    """Give the first convolution of ``model`` another number of input channels, and inflate its weight.

    Raises:
        ValueError: if the model has no convolution.
    """
    first = next(((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution whose input channels could change")
    name, conv = first
    if conv.in_channels == in_channels:
        return
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
