"""Masks that are relative to a box, drawn where the box is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hydet.structures import Boxes

__all__ = ["paste_masks_in_image"]

_DENSE_PIXELS = 1 << 25  # how many float pixels are held at a time (128 MiB) where windows are not used


@torch.no_grad()
def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resample each mask over its box and threshold it.

    A mask is sampled bilinearly at the centres of the image's pixels, with zeros around it, so that it fades out over
    half a cell beyond its box. Memory beyond the result stays bounded whatever the number of masks.

    Args:
        masks: ``(N, M, M)`` floats, usually probabilities; need not be square.
        boxes: N boxes in pixels of the image. They may reach beyond it; one wholly outside, without area or
            not finite gives an empty mask.
        image_shape: (height, width) in pixels.
        threshold: a pixel is inside from this value on. A negative one asks for the values themselves.

    Returns:
        ``(N, height, width)`` bool; uint8 ``floor(255 * value)`` if ``threshold`` is negative.

    Raises:
        ValueError: if ``masks`` has not three dimensions or there are not as many boxes.
    """
    corners = (boxes.tensor if isinstance(boxes, Boxes) else boxes).to(masks.device, torch.float32)
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, M, M), got {tuple(masks.shape)}")
    if corners.ndim != 2 or corners.shape[0] != masks.shape[0] or corners.shape[1] != 4:
        raise ValueError(
            f"{masks.shape[0]} masks need boxes of shape ({masks.shape[0]}, 4), got {tuple(corners.shape)}"
        )
    height, width = int(image_shape[0]), int(image_shape[1])
    masks = masks.to(torch.float32)
    if torch.compiler.is_compiling():
        return _decide(_paste_dense(masks, corners, height, width), threshold)
    dtype = torch.uint8 if threshold < 0 else torch.bool
    pasted = torch.full((masks.shape[0], height, width), threshold == 0, dtype=dtype, device=masks.device)
    if masks.device.type == "cpu":
        _paste_windows(masks, corners, threshold, pasted)
        return pasted
    step = max(1, _DENSE_PIXELS // max(1, height * width))
    for start in range(0, masks.shape[0], step):
        part = slice(start, start + step)
        pasted[part] = _decide(_paste_dense(masks[part], corners[part], height, width), threshold)
    return pasted


def _decide(values: Tensor, threshold: float) -> Tensor:
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)


# N masks of (I, J) cells, drawn on H x W pixels. Bilinear sampling is separable: the value at pixel (h, w) is
# sum_ij rows[h, i] mask[i, j] columns[w, j], where rows and columns are hats over the cells, one cell wide to each side.


def _hats(positions: Tensor, num_cells: int) -> Tensor:
    cells = torch.arange(num_cells, dtype=positions.dtype, device=positions.device)
    return (
        (positions[..., None] - cells).abs_().neg_().add_(1).clamp_(min=0)
    )  # (..., L) -> (..., L, num_cells)


def _paste_dense(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """``(N, H, W)`` floats, by two batched matrix products over the whole image."""
    weights = []
    drawn = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    for size, cells, low, high in (
        (height, masks.shape[1], boxes[:, 1], boxes[:, 3]),
        (width, masks.shape[2], boxes[:, 0], boxes[:, 2]),
    ):
        centres = torch.arange(size, dtype=boxes.dtype, device=boxes.device) + 0.5
        positions = (centres - low[:, None]) * (cells / (high - low))[:, None] - 0.5  # (N, L)
        weights.append(_hats(torch.where(drawn[:, None], positions, -2.0), cells))
    rows, columns = weights  # (N, H, I), (N, W, J)
    return torch.bmm(torch.bmm(rows, masks), columns.transpose(1, 2))


def _paste_windows(masks: Tensor, boxes: Tensor, threshold: float, pasted: Tensor) -> None:
    """Draw each mask into the part of ``pasted`` that it reaches."""
    height, width = pasted.shape[1:]
    rows, columns = masks.shape[1:]
    down = torch.arange(height, dtype=torch.float32) + 0.5
    across = torch.arange(width, dtype=torch.float32) + 0.5
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        if not (x2 > x1 and y2 > y1 and math.isfinite(x2 - x1) and math.isfinite(y2 - y1)):
            continue
        top, bottom = _reach(y1, y2, rows, height)
        left, right = _reach(x1, x2, columns, width)
        if top >= bottom or left >= right:
            continue
        y_scale, x_scale = rows / (y2 - y1), columns / (x2 - x1)
        y = _hats((down[top:bottom] - y1).mul_(y_scale).sub_(0.5), rows)  # (h, I)
        x = _hats((across[left:right] - x1).mul_(x_scale).sub_(0.5), columns)  # (w, J)
        pasted[i, top:bottom, left:right] = _decide((y @ masks[i]) @ x.T, threshold)


def _reach(low: float, high: float, num_cells: int, size: int) -> tuple[int, int]:
    """First pixel and one past the last that a mask between ``low`` and ``high`` touches."""
    margin = 0.5 * (high - low) / num_cells
    return max(0, math.floor(low - margin)), min(size, math.ceil(high + margin))
