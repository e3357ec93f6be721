"""How wide a network's features are, for parts that are configured beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .backbone import Backbone

__all__ = ["channels_at_stride"]


def channels_at_stride(*, make_backbone: Callable[[], Backbone], stride: int) -> int:
    """Channels of the last feature of a stride, without computing or downloading anything.

    Args:
        make_backbone: makes the network; called once, on the meta device where it can be.
        stride: input pixels a cell.

    Raises:
        ValueError: if the network has no such feature.
    """
    try:
        with torch.device("meta"):
            shapes = make_backbone().output_shape()
    except NotImplementedError:  # its constructor looks into tensors
        shapes = make_backbone().output_shape()
    found = [shape.channels for shape in shapes.values() if shape.stride == stride]
    if not found or found[-1] is None:
        raise ValueError(
            f"the network has no feature of stride {stride}; there are { {n: s.stride for n, s in shapes.items()} }"
        )
    return found[-1]
