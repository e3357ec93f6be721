"""Channel counts of backbones, for configs stored before sizes came from ``output_shape()``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .backbone import Backbone

__all__ = ["channels_at_stride", "resnet_channels"]

STAGES = ("res2", "res3", "res4", "res5")


def channels_at_stride(*, make_backbone: Callable[[], Backbone], stride: int) -> int:
    """Return the channels of the last feature map with the given stride, without computing the map.

    Args:
        make_backbone: makes the backbone. It is called on the meta device, and again without it if the constructor reads
            values of tensors.
        stride: input pixels per cell.

    Raises:
        ValueError: if the backbone has no feature map of that stride.
    """
    try:
        with torch.device("meta"):
            shapes = make_backbone().output_shape()
    except NotImplementedError:  # the constructor reads values of tensors
        shapes = make_backbone().output_shape()
    channels = [shape.channels for shape in shapes.values() if shape.stride == stride]
    if not channels or channels[-1] is None:
        strides = {name: shape.stride for name, shape in shapes.items()}
        raise ValueError(f"the backbone has no feature of stride {stride}; its strides are {strides}")
    return channels[-1]


def resnet_channels(*, res2_out_channels: int, feature: str) -> int:
    """Return the channels of a ResNet stage, which double with every stage.

    Args:
        res2_out_channels: see ``make_resnet``.
        feature: ``res2`` to ``res5``.

    Raises:
        ValueError: if ``feature`` is unknown.
    """
    if feature not in STAGES:
        raise ValueError(f"feature must be one of {', '.join(STAGES)}, got {feature!r}")
    return res2_out_channels << STAGES.index(feature)
