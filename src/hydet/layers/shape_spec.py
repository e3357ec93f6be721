"""Shape of a feature map, known before any is computed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ShapeSpec"]


@dataclass
class ShapeSpec:
    """Channels, size and stride of a feature map; None where unknown.

    Args:
        channels: number of channels.
        height: height in cells.
        width: width in cells.
        stride: input pixels per cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
