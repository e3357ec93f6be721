"""A model that sees large images tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from torch import nn

from hydet.modeling.meta_arch import PanopticFPN, combine_semantic_and_instance_outputs
from hydet.modeling.meta_arch.limits import detection_limits
from hydet.modeling.meta_arch.model_inputs import output_size
from hydet.modeling.protocols import Detector, Task
from hydet.structures import (
    Instances,
    Losses,
    ModelInput,
    ModelOutput,
    ROIMasks,
    SemanticScores,
    semantic_labels,
)
from hydet.structures.model_io import DefersPasting

from .canvas import SemanticCanvas
from .grid import crop_input, make_tiles
from .merging import merge_instances, merge_proposals, move_instances, move_proposals

__all__ = ["TileMapper", "TileableModel", "TiledModel"]


class TileMapper(Protocol):
    """Prepares the input of a tile for the model, for example resizes its image."""

    def __call__(self, tile: ModelInput, /) -> ModelInput:
        """Return the input of the model; ``height`` and ``width`` stay those of the tile."""
        ...


@runtime_checkable
class TileableModel(Protocol):
    """A model that ``TiledModel`` can run: every ``Detector``, and exported models."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model, most important first."""
        ...

    @property
    def input_format(self) -> str | None:
        """Channel order of ``image``; None means RGB."""
        ...

    @property
    def needs_proposals(self) -> bool:
        """True if each input must carry ``proposals``."""
        ...

    def __call__(self, batched_inputs: Sequence[ModelInput]) -> Sequence[ModelOutput]:
        """Return one result per image."""
        ...


class TiledModel(nn.Module):
    """A detector that sees large images as overlapping tiles in their original resolution.

    Inputs hold images in full size. Tiles of all images of a batch run in batches of their own. Results are merged in the
    frame of the image:

    - Boxes, upright or rotated, are suppressed per class across tiles. An object that the border of a tile cuts is taken
      from a tile that sees it whole, and joined from its parts if there is none.
    - Masks stay relative to their boxes; ``detect_unpasted`` returns them so, and its memory does not depend on the size
      of the image.
    - Keypoints move with their boxes.
    - Class probabilities of semantic segmentation are averaged; ``sem_seg`` holds their logarithms.
    - Panoptic segments are combined from the merged instances and labels.

    An image that fits into one tile has exactly the results of the model.

    Args:
        model: a detector of hydet in evaluation mode, or another one, such as an exported model, of any task but
            panoptic segmentation.
        tile: side of a tile in pixels of the original image.
        overlap: fraction of a tile that its neighbor covers, in [0, 1). Objects up to that size are seen whole by a tile.
        batch_size: tiles per forward pass.
        tile_mapper: prepares each tile for the model, as the mapper of the data prepares an image; by default nothing.
        nms_thresh: IoU above which detections of a class suppress each other; by default the threshold of the model.
        match_thresh: IoU above which two detections show the same cut object, compared where both tiles see it.
        max_detections: maximum number of detections per image, negative for all. The model limits those of each tile.

    Raises:
        ValueError: if a number is out of range, or ``model`` is a panoptic model other than ``PanopticFPN``: segments of
            tiles cannot be joined without the instances and scores that they were combined from.

    Source: Akyon et al. 2022 (arXiv:2202.06934), for sliced inference.
    """

    def __init__(
        self,
        *,
        model: TileableModel,
        tile: int,
        overlap: float = 0.2,
        batch_size: int = 1,
        tile_mapper: TileMapper | None = None,
        nms_thresh: float | None = None,
        match_thresh: float = 0.5,
        max_detections: int = -1,
    ) -> None:
        super().__init__()
        if tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, got {tile}")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must lie in [0, 1), got {overlap}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if "panoptic" in model.tasks and not isinstance(model, PanopticFPN):
            raise ValueError(
                "tiling of panoptic models needs a PanopticFPN, whose parts are merged before they are combined, got "
                f"{type(model).__name__}"
            )
        limits = detection_limits(model)
        self.model = model
        self.tile = tile
        self.overlap = overlap
        self.batch_size = batch_size
        self.tile_mapper = tile_mapper
        self.nms_thresh = limits.nms_thresh if nms_thresh is None else nms_thresh
        self.match_thresh = match_thresh
        self.max_detections = max_detections

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model."""
        return self.model.tasks

    @property
    def input_format(self) -> str | None:
        """Channel order of ``image``: that of the model."""
        return self.model.input_format

    @property
    def needs_proposals(self) -> bool:
        """True if each input must carry ``proposals``, in the frame of its image."""
        return self.model.needs_proposals

    def __call__(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Return one result per image; see ``inference``."""
        return self.inference(batched_inputs)

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Return one result per image, with masks pasted into the image and semantic scores in full size.

        These take gigabytes for large images; ``detect_unpasted`` keeps them small.
        """
        return [_enlarge(output) for output in self.detect_unpasted(batched_inputs, with_losses=False)[1]]

    @torch.no_grad()
    def detect_unpasted(
        self, batched_inputs: Sequence[ModelInput], *, with_losses: bool
    ) -> tuple[Losses, list[ModelOutput]]:
        """Return one result per image, with masks relative to their boxes and small semantic scores.

        Args:
            batched_inputs: one dict per image; ``height`` and ``width`` are the output resolution, by default that of the
                image.
            with_losses: ignored, since tiles have no losses; they are always empty.
        """
        pending = [_PendingImage(entry, self.tile, self.overlap) for entry in batched_inputs]
        tiles = [(image, index) for image in pending for index in range(len(image.tiles))]
        results: list[ModelOutput] = []
        for start in range(0, len(tiles), self.batch_size):
            chunk = tiles[start : start + self.batch_size]
            inputs = [image.input_of(index) for image, index in chunk]
            if self.tile_mapper is not None:
                inputs = [self.tile_mapper(entry) for entry in inputs]
            for (image, index), output in zip(chunk, self._run(inputs), strict=True):
                image.add(index, output)
                if index == len(image.tiles) - 1:
                    results.append(self._finish(image))
        return {}, results

    def _run(self, inputs: Sequence[ModelInput]) -> Sequence[ModelOutput]:
        if isinstance(self.model, DefersPasting):
            return self.model.detect_unpasted(inputs, with_losses=False)[1]
        return self.model.inference(inputs) if isinstance(self.model, Detector) else self.model(inputs)

    def _finish(self, image: _PendingImage) -> ModelOutput:
        """Merge the results of all tiles of an image."""
        if image.whole is not None:
            return image.whole
        result: ModelOutput = {}
        if image.proposals:
            proposals = merge_proposals(image.proposals, nms_thresh=self.nms_thresh, topk=self.max_detections)
            result["proposals"] = image.to_frame(proposals)
        if image.has_semantics:
            result["sem_seg"] = SemanticScores(image.canvas.scores().tensor, image.frame)
        if image.instances:
            instances = merge_instances(
                image.instances,
                image.tiles,
                nms_thresh=self.nms_thresh,
                match_thresh=self.match_thresh,
                topk=self.max_detections,
            )
            result["instances"] = image.to_frame(instances)
        if isinstance(self.model, PanopticFPN):
            result["panoptic_seg"] = combine_semantic_and_instance_outputs(
                result["instances"],
                semantic_labels(result["sem_seg"]),
                self.model.combine_overlap_thresh,
                self.model.combine_stuff_area_thresh,
                self.model.combine_instances_score_thresh,
            )
        return result


class _PendingImage:
    """One image, and the results of those of its tiles that have run.

    Args:
        entry: the input of the image.
        tile: see ``TiledModel``.
        overlap: see ``TiledModel``.

    Attributes:
        size: (height, width) of the image.
        frame: (height, width) of the results.
        whole: the result of an image that fits into one tile.
        instances: per tile, in the frame of the image.
        proposals: per tile, in the frame of the image.
        canvas: semantic scores of all tiles.
        has_semantics: True if ``canvas`` has scores.
    """

    def __init__(self, entry: ModelInput, tile: int, overlap: float) -> None:
        self.entry = entry
        self.size = (int(entry["image"].shape[1]), int(entry["image"].shape[2]))
        self.frame = output_size(entry, self.size)
        self.tiles = make_tiles(self.size, tile, overlap)
        self.whole: ModelOutput | None = None
        self.instances: list[Instances] = []
        self.proposals: list[Instances] = []
        self.canvas = SemanticCanvas(self.size)
        self.has_semantics = False

    def input_of(self, index: int) -> ModelInput:
        """Return the input of a tile; a single tile has the input of the image."""
        if len(self.tiles) == 1:
            height, width = self.frame
            return cast(ModelInput, {**self.entry, "height": height, "width": width})
        return crop_input(self.entry, self.tiles[index])

    def add(self, index: int, output: ModelOutput) -> None:
        """Add the results of the next tile, without its maps, which would add up to gigabytes."""
        tile = self.tiles[index]
        if len(self.tiles) == 1:
            self.whole = output
            return
        if "instances" in output:
            self.instances.append(move_instances(output["instances"], tile, self.size))
        if "proposals" in output:
            self.proposals.append(move_proposals(output["proposals"], tile, self.size))
        if "sem_seg" in output:
            self.canvas.add(output["sem_seg"], tile)
            self.has_semantics = True

    def to_frame(self, instances: Instances) -> Instances:
        """Scale instances from the frame of the image to that of the output."""
        if self.frame == self.size:
            return instances
        scale_y, scale_x = (new / old for new, old in zip(self.frame, self.size, strict=True))
        scaled = Instances(self.frame, **instances.get_fields())
        name = "pred_boxes" if instances.has("pred_boxes") else "proposal_boxes"
        boxes = instances.get(name).clone()
        boxes.scale(scale_x, scale_y)
        scaled.set(name, boxes)
        if instances.has("pred_keypoints"):
            keypoints = instances.pred_keypoints
            scaled.pred_keypoints = keypoints * keypoints.new_tensor([scale_x, scale_y, 1.0])
        return scaled


def _enlarge(output: ModelOutput) -> ModelOutput:
    """Paste masks into the image and resize semantic scores."""
    enlarged: ModelOutput = {**output}
    if "instances" in output and output["instances"].has("pred_masks"):
        instances = output["instances"]
        if isinstance(instances.pred_masks, ROIMasks):
            masks = instances.pred_masks.to_bitmasks(instances.pred_boxes, *instances.image_size).tensor
            enlarged["instances"] = Instances(
                instances.image_size, **{**instances.get_fields(), "pred_masks": masks}
            )
    if "sem_seg" in output and isinstance(output["sem_seg"], SemanticScores):
        enlarged["sem_seg"] = output["sem_seg"].resize()
    return enlarged
