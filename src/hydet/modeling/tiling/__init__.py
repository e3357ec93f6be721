"""Tiling: run a model on overlapping tiles of large images in their original resolution, and merge the results."""

from .tiled_model import TileableModel, TiledModel, TileMapper

__all__ = ["TileMapper", "TileableModel", "TiledModel"]
