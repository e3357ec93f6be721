"""Keypoints of objects, and decoding of predicted heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.structures._pytree import register_tensor_container
from hydet.structures.boxes import Boxes, box_tensor


@register_tensor_container
class Keypoints:
    """K keypoints for each of N objects.

    Args:
        keypoints: ``(N, K, 3)`` as ``(x, y, v)``: pixels, and a visibility of 0 (not labeled), 1 (labeled but
            hidden) or 2 (visible). Stored as float32.

    Raises:
        ValueError: if the shape is not ``(N, K, 3)``.
    """

    tensor: Tensor

    def __init__(self, keypoints: Tensor | np.ndarray | Sequence[Sequence[Sequence[float]]]) -> None:
        tensor = torch.as_tensor(keypoints, dtype=torch.float32)
        if tensor.ndim != 3 or tensor.shape[2] != 3:
            raise ValueError(f"Keypoints takes a tensor of shape (N, K, 3), got {tuple(tensor.shape)}")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        """Return the keypoints after ``tensor.to(*args, **kwargs)``; they stay float32."""
        return Keypoints(self.tensor.to(*args, **kwargs))

    def pin_memory(self) -> Keypoints:
        """Return the keypoints in page-locked memory, for data loaders."""
        return Keypoints(self.tensor.pin_memory())

    def to_heatmap(self, boxes: Tensor | Boxes, heatmap_size: int) -> tuple[Tensor, Tensor]:
        """Return the heatmap cell of each keypoint within the box of its object.

        Args:
            boxes: ``(N, 4)`` xyxy in pixels.
            heatmap_size: side of the square heatmap in cells.

        Returns:
            ``(N, K)`` int64 cell indices ``y * heatmap_size + x``, 0 where invalid, and ``(N, K)`` int64 validity: 1
            where the keypoint is labeled and inside its box, including the right and bottom edges.

        Raises:
            ValueError: if the number of boxes differs from that of objects.

        Source: He et al. 2017 (arXiv:1703.06870), section 4.5.
        """
        corners = box_tensor(boxes)[:, None]  # (N, 1, 4)
        if corners.shape[0] != self.tensor.shape[0]:
            raise ValueError(f"{self.tensor.shape[0]} objects need as many boxes, got {corners.shape[0]}")
        points, visibility = self.tensor[..., :2], self.tensor[..., 2]  # (N, K, 2), (N, K)
        near, far = corners[..., :2], corners[..., 2:]
        cells = ((points - near) * (heatmap_size / (far - near))).floor()
        cells = torch.where(points == far, heatmap_size - 1, cells)
        inside = ((cells >= 0) & (cells < heatmap_size)).all(dim=2)  # NaN, from an empty box, is outside
        valid = inside & (visibility > 0)
        x, y = torch.where(valid[..., None], cells, 0).long().unbind(dim=2)
        return y * heatmap_size + x, valid.long()

    def __getitem__(self, item: int | slice | Tensor) -> Keypoints:
        """Select objects by an int (one object), a slice, a bool mask or integer indices."""
        selected = self.tensor[item]
        if selected.ndim == 2:  # an int, or a tensor without dimensions
            selected = selected.unsqueeze(0)
        return Keypoints(selected)

    def __repr__(self) -> str:
        return f"Keypoints({self.tensor})"

    @staticmethod
    def cat(keypoints_list: Sequence[Keypoints]) -> Keypoints:
        """Concatenate the objects of several sets with equally many keypoints.

        Raises:
            TypeError: if an element is not ``Keypoints``.
            ValueError: if the list is empty.
        """
        if len(keypoints_list) == 0:
            raise ValueError("Keypoints.cat takes at least one Keypoints, got none")
        for keypoints in keypoints_list:
            if not isinstance(keypoints, Keypoints):
                raise TypeError(
                    f"Keypoints.cat takes a sequence of Keypoints, got a {type(keypoints).__name__} in it"
                )
        return Keypoints(torch.cat([keypoints.tensor for keypoints in keypoints_list], dim=0))


def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """Decode predicted heatmaps to keypoints.

    Each heatmap is resized (bicubic) to the size of its box in whole pixels; the keypoint is the highest pixel.

    Args:
        maps: ``(R, K, H, W)`` logits.
        rois: ``(R, 4)`` xyxy in pixels of the image; sides shorter than 1 are treated as 1.

    Returns:
        ``(R, K, 4)`` as ``(x, y, logit, score)``, without gradient, at least float32: position in pixels of the image,
        highest logit of the resized map, and the score ``1 / sum(exp(logits - highest))`` over the original map.

    Raises:
        ValueError: if a shape is wrong.

    Source: He et al. 2017 (arXiv:1703.06870), section 4.5.
    """
    if maps.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 4:
        raise ValueError(
            f"maps must be (R, K, H, W) and rois (R, 4), got {tuple(maps.shape)} and {tuple(rois.shape)}"
        )
    dtype = torch.promote_types(maps.dtype, torch.float32)
    keypoints: Tensor = _heatmaps_to_keypoints(maps.detach().to(dtype), rois.detach().to(dtype))
    return keypoints


# A custom operator, because the resized shapes depend on data: compilers see only the shape of the output.
@torch.library.custom_op("hydet::heatmaps_to_keypoints", mutates_args=())
def _heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    num_rois, num_keypoints = maps.shape[:2]
    sides = (rois[:, 2:] - rois[:, :2]).clamp(min=1)  # (R, 2): width, height
    pixels = sides.ceil()
    peaks = maps.new_zeros((num_rois, num_keypoints), dtype=torch.int64)
    highest = maps.new_zeros((num_rois, num_keypoints))
    for i, (width, height) in enumerate(pixels.long().tolist()):
        resampled = F.interpolate(maps[i : i + 1], (height, width), mode="bicubic", align_corners=False)
        torch.max(resampled[0].flatten(1), dim=1, out=(highest[i], peaks[i]))
    columns = pixels[:, :1].long()
    peak_pixels = torch.stack([peaks % columns, peaks // columns], dim=2)  # (R, K, 2)
    position = (peak_pixels + 0.5) * (sides / pixels)[:, None] + rois[:, None, :2]
    score = 1 / (maps - highest[..., None, None]).exp().sum(dim=(2, 3))
    return torch.cat([position, highest[..., None], score[..., None]], dim=2)


@_heatmaps_to_keypoints.register_fake
def _(maps: Tensor, rois: Tensor) -> Tensor:
    return maps.new_empty((maps.shape[0], maps.shape[1], 4))
