"""The tiles of an image."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from hydet.structures import Instances, ModelInput

__all__ = ["Tile", "crop_input", "make_tiles"]


class Tile(NamedTuple):
    """A tile of an image, in pixels.

    Attributes:
        x1: left edge.
        y1: top edge.
        x2: right edge, exclusive.
        y2: bottom edge, exclusive.
    """

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y2 - self.y1, self.x2 - self.x1


def make_tiles(image_size: tuple[int, int], tile: int, overlap: float) -> list[Tile]:
    """Cover an image with overlapping tiles, row by row.

    All tiles of an image have one size. They are spread evenly, so neighbors overlap by at least ``overlap * tile``
    pixels, and often by a little more.

    Args:
        image_size: (height, width).
        tile: side of a square tile; an image that is smaller in one direction has lower or narrower tiles.
        overlap: fraction of a tile that its neighbor covers, in [0, 1).
    """
    height, width = image_size
    return [
        Tile(x, y, x + min(tile, width), y + min(tile, height))
        for y in _starts(height, tile, overlap)
        for x in _starts(width, tile, overlap)
    ]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return the first pixel of each tile along one side of an image."""
    if length <= tile:
        return [0]
    step = tile - math.ceil(tile * overlap)
    count = 1 + math.ceil((length - tile) / max(1, step))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def crop_input(entry: ModelInput, tile: Tile) -> ModelInput:
    """Return the input of a tile, whose results are in the frame of the tile.

    Proposals that lie outside the tile are dropped, and the others clipped to it. Ground truth is left out.
    """
    x1, y1, x2, y2 = tile
    cropped: ModelInput = {"image": entry["image"][:, y1:y2, x1:x2], "height": y2 - y1, "width": x2 - x1}
    if "file_name" in entry:
        cropped["file_name"] = entry["file_name"]
    if "image_id" in entry:
        cropped["image_id"] = entry["image_id"]
    if "proposals" in entry:
        cropped["proposals"] = _crop_proposals(entry["proposals"], tile)
    return cropped


def _crop_proposals(proposals: Instances, tile: Tile) -> Instances:
    boxes = proposals.proposal_boxes
    moved = type(boxes)(shift_boxes(boxes.tensor, -tile.x1, -tile.y1))
    moved.clip(tile.size)
    inside = moved.nonempty()
    return Instances(tile.size, **{**proposals.get_fields(), "proposal_boxes": moved})[inside]


def shift_boxes(boxes: Tensor, x: int, y: int) -> Tensor:
    """Move ``(N, 4)`` boxes, or ``(N, 5)`` rotated boxes, by whole pixels."""
    offset = [x, y, 0, 0, 0] if boxes.shape[1] == 5 else [x, y, x, y]
    return boxes + boxes.new_tensor(offset)
