"""Augmented copies of a model input, and the transform between each copy and the output frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hydet.modeling.meta_arch.model_inputs import output_size
from hydet.structures import Instances, ModelInput, RotatedBoxes, resize_with_pillow, shortest_edge_size
from hydet.structures.box_ops import wrap_angles

__all__ = ["AugmentedInput", "DatasetMapperTTA", "ResizeAndFlip", "default_mapper", "flip_boxes"]


@dataclass(frozen=True)
class ResizeAndFlip:
    """The transform from the output frame to one augmented image.

    Args:
        source: (height, width) of the output frame in pixels.
        target: (height, width) of the augmented image in pixels.
        flip: True if the image is flipped left to right after resizing.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    flip: bool

    def apply_boxes(self, boxes: Tensor) -> Tensor:
        """Map ``(N, 4)`` boxes, or ``(N, 5)`` rotated boxes, from the output frame to the augmented image."""
        scaled = _scale_boxes(boxes, self.source, self.target)
        return flip_boxes(scaled, self.target[1]) if self.flip else scaled

    def invert_boxes(self, boxes: Tensor) -> Tensor:
        """Map ``(N, 4)`` boxes, or ``(N, 5)`` rotated boxes, from the augmented image to the output frame."""
        unflipped = flip_boxes(boxes, self.target[1]) if self.flip else boxes
        return _scale_boxes(unflipped, self.target, self.source)

    def apply_box(self, box: NDArray[np.generic]) -> NDArray[np.floating]:
        """Map ``(N, 4)`` boxes of a NumPy array like ``apply_boxes``; integers become float64."""
        return _apply_to_array(self.apply_boxes, box)

    def inverse(self) -> InverseResizeAndFlip:
        """Return the transform from the augmented image to the output frame."""
        return InverseResizeAndFlip(self)


@dataclass(frozen=True)
class InverseResizeAndFlip:
    """The transform from an augmented image to the output frame.

    Args:
        original: the transform in the other direction.
    """

    original: ResizeAndFlip

    def apply_box(self, box: NDArray[np.generic]) -> NDArray[np.floating]:
        """Map ``(N, 4)`` boxes of a NumPy array like ``ResizeAndFlip.invert_boxes``; integers become float64."""
        return _apply_to_array(self.original.invert_boxes, box)

    def inverse(self) -> ResizeAndFlip:
        """Return the transform from the output frame to the augmented image."""
        return self.original


def _apply_to_array(transform: Callable[[Tensor], Tensor], box: NDArray[np.generic]) -> NDArray[np.floating]:
    array = np.asarray(box)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    output: NDArray[np.floating] = transform(torch.tensor(array)).numpy()
    return output


def _scale_boxes(boxes: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Map boxes of an image of size ``source`` to the image resized to ``target``."""
    scale_y, scale_x = (new / old for old, new in zip(source, target, strict=True))
    if boxes.shape[1] == 5:
        scaled = RotatedBoxes(boxes.clone())
        scaled.scale(scale_x, scale_y)
        return scaled.tensor
    return boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Mirror ``(N, 4)`` boxes, or ``(N, 5)`` rotated boxes, in an image of ``width`` pixels."""
    if boxes.shape[1] == 5:
        x, y, w, h, angle = boxes.unbind(1)
        return torch.stack([width - x, y, w, h, wrap_angles(-angle)], dim=1)
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


class AugmentedInput(ModelInput):
    """A model input with an augmented ``image``.

    Keys:
        transforms: the transform from the output frame to ``image``.
    """

    transforms: ResizeAndFlip


class DatasetMapperTTA:
    """Makes the augmented copies of a model input.

    Args:
        min_sizes: lengths of the shorter side to resize to, in pixels.
        max_size: upper bound of the longer side, in pixels.
        flip: also return a flipped copy of each resized image.

    Raises:
        ValueError: if ``min_sizes`` is empty.
    """

    def __init__(self, *, min_sizes: Sequence[int], max_size: int, flip: bool) -> None:
        if not min_sizes:
            raise ValueError("DatasetMapperTTA needs at least one size in min_sizes")
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.flip = flip

    def __call__(self, dataset_dict: ModelInput) -> list[AugmentedInput]:
        """Return the augmented copies of an input.

        Args:
            dataset_dict: a model input; ``image`` is ``(C, H, W)``, uint8 or float. ``height`` and ``width`` name the
                output frame, which is the frame of ``image`` by default.

        Returns:
            Copies of the input with a new ``image`` and its ``transforms``: for each size the resized image, then
            the flipped one. uint8 images are resized by Pillow (bilinear, antialiased), float images by bilinear
            interpolation. ``proposals`` of the input follow the image.
        """
        image = dataset_dict["image"]
        size = (int(image.shape[1]), int(image.shape[2]))
        frame = output_size(dataset_dict, size)
        augmented: list[AugmentedInput] = []
        for min_size in self.min_sizes:
            target = shortest_edge_size(*size, min_size, self.max_size)
            resized = _resize(image, target)
            for flip in (False, True) if self.flip else (False,):
                copy: AugmentedInput = {
                    **dataset_dict,
                    "image": resized.flip(2) if flip else resized,
                    "transforms": ResizeAndFlip(frame, target, flip),
                }
                if "proposals" in dataset_dict:
                    copy["proposals"] = _move_proposals(
                        dataset_dict["proposals"], ResizeAndFlip(size, target, flip)
                    )
                augmented.append(copy)
        return augmented


def default_mapper() -> DatasetMapperTTA:
    """Return the mapper of published results: shorter sides of 400 to 1200 pixels in steps of 100, each also flipped."""
    return DatasetMapperTTA(min_sizes=range(400, 1201, 100), max_size=4000, flip=True)


def _move_proposals(proposals: Instances, transform: ResizeAndFlip) -> Instances:
    """Return proposals of the input image in the frame of the augmented image."""
    boxes = proposals.proposal_boxes
    moved = type(boxes)(transform.apply_boxes(boxes.tensor))
    return Instances(transform.target, **{**proposals.get_fields(), "proposal_boxes": moved})


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.dtype == torch.uint8:
        return resize_with_pillow(image, size)
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]
