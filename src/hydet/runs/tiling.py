"""Run a model on tiles of large images, prepared as the mapper of the data prepares images."""

from __future__ import annotations

import torch

from hydet.config import ConfigError
from hydet.data import InputMapper
from hydet.data.datasets.record import Proposals
from hydet.data.mapping.sample import Sample
from hydet.data.mapping.transforming import apply_transforms
from hydet.modeling import TileableModel, TiledModel
from hydet.structures import Boxes, Instances, ModelInput

__all__ = ["MappedTiles", "add_tiling"]


def add_tiling(
    model: object, mapper: InputMapper, *, tile: int, overlap: float, batch_size: int
) -> tuple[TiledModel, InputMapper]:
    """Let a model see images as tiles in their original resolution.

    Args:
        model: a detector in evaluation mode, or an exported model.
        mapper: its transforms, such as resizing to the size of test images, apply to each tile instead of the image.
        tile: side of a tile in pixels.
        overlap: fraction of a tile that its neighbor covers.
        batch_size: tiles per forward pass.

    Returns:
        The tiled model, and the mapper of its inputs, which leaves images in full size.

    Raises:
        ConfigError: if the model is not a detector, or a panoptic model whose segments cannot be joined.
        ValueError: if a number is out of range.
    """
    if not isinstance(model, TileableModel):
        raise ConfigError(f"tile: {type(model).__name__} does not implement hydet.modeling.TileableModel")
    tiled = TiledModel(
        model=model, tile=tile, overlap=overlap, batch_size=batch_size, tile_mapper=MappedTiles(mapper)
    )
    return tiled.eval(), mapper.without_transforms()


class MappedTiles:
    """Applies the transforms of a mapper to tiles; implements ``hydet.modeling.TileMapper``.

    Args:
        mapper: its transforms see RGB images, whatever channel order the model expects.
    """

    def __init__(self, mapper: InputMapper) -> None:
        self.mapper = mapper

    def __call__(self, tile: ModelInput) -> ModelInput:
        """Return the input with transformed ``image`` and ``proposals``."""
        is_bgr = self.mapper.channel_order == "BGR"
        image = tile["image"]
        proposals = tile.get("proposals")
        sample = Sample(
            image=image.flip(0) if is_bgr else image,
            boxes=torch.zeros(0, 4),
            classes=torch.zeros(0, dtype=torch.int64),
            proposals=None
            if proposals is None
            else Proposals(proposals.proposal_boxes.tensor, proposals.objectness_logits),
        )
        moved, _ = apply_transforms(sample, self.mapper.transforms, seed=None)
        mapped: ModelInput = {**tile, "image": moved.image.flip(0) if is_bgr else moved.image}
        if moved.proposals is not None:
            mapped["proposals"] = Instances(
                moved.size,
                proposal_boxes=Boxes(moved.proposals.boxes.as_subclass(torch.Tensor)),
                objectness_logits=moved.proposals.objectness_logits,
            )
        return mapped
