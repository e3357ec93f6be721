"""The augmented inputs of one input, and the way back to its frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hydet.structures import resize_with_pillow, shortest_edge_size

__all__ = ["DatasetMapperTTA", "ResizeAndFlip", "default_mapper"]


@dataclass(frozen=True)
class ResizeAndFlip:
    """How one augmented picture came from the frame that results are reported in.

    Args:
        source: (height, width) of the output frame.
        target: (height, width) of the augmented picture.
        flip: mirrored left to right after resizing.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    flip: bool

    def apply_boxes(self, boxes: Tensor) -> Tensor:
        """``(N, 4)`` boxes of the output frame, in the frame of the augmented picture."""
        scaled = boxes * self._scale(boxes)
        return _mirrored(scaled, self.target[1]) if self.flip else scaled

    def invert_boxes(self, boxes: Tensor) -> Tensor:
        """``(N, 4)`` boxes found in the augmented picture, in the output frame."""
        unflipped = _mirrored(boxes, self.target[1]) if self.flip else boxes
        return unflipped / self._scale(boxes)

    def _scale(self, like: Tensor) -> Tensor:
        y, x = (t / s for s, t in zip(self.source, self.target, strict=True))
        return like.new_tensor([x, y, x, y])


def _mirrored(boxes: Tensor, width: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


class DatasetMapperTTA:
    """Makes the augmented inputs of one input.

    Args:
        min_sizes: lengths of the shorter side to resize to, in pixels.
        max_size: bound of the longer side.
        flip: after each resized picture also give it mirrored.
    """

    def __init__(self, *, min_sizes: Sequence[int], max_size: int, flip: bool) -> None:
        if not min_sizes:
            raise ValueError("DatasetMapperTTA needs at least one size in min_sizes")
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.flip = flip

    def __call__(self, dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Augment.

        Args:
            dataset_dict: a model input; ``image`` is ``(C, H, W)``, uint8 or float; ``height`` and ``width`` name
                the output frame (by default that of the image).

        Returns:
            Copies of it with another ``image`` and with ``transforms``, a ``ResizeAndFlip``: for each size the
            resized picture (bilinear, antialiased as PIL does on 8-bit pictures), then the mirrored one.
        """
        image = dataset_dict["image"]
        size = (int(image.shape[1]), int(image.shape[2]))
        output = (int(dataset_dict.get("height", size[0])), int(dataset_dict.get("width", size[1])))
        found = []
        for min_size in self.min_sizes:
            target = shortest_edge_size(*size, min_size, self.max_size)
            resized = _resize(image, target)
            for flip in (False, True) if self.flip else (False,):
                found.append(
                    {
                        **dataset_dict,
                        "image": resized.flip(2) if flip else resized,
                        "transforms": ResizeAndFlip(output, target, flip),
                    }
                )
        return found


def default_mapper() -> DatasetMapperTTA:
    """The sizes that published results with test-time augmentation used: 400 to 1200 in steps of 100, mirrored too."""
    return DatasetMapperTTA(min_sizes=range(400, 1201, 100), max_size=4000, flip=True)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.dtype == torch.uint8:
        return resize_with_pillow(image, size)
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]
