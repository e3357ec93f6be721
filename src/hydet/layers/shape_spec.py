"""What a component needs to know of a feature map before it sees one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ShapeSpec"]


@dataclass
class ShapeSpec:
    """Channels, size and stride of a feature map; ``None`` where it is not known or does not matter.

    Args:
        channels: number of channels.
        height: in cells.
        width: in cells.
        stride: input pixels a cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
