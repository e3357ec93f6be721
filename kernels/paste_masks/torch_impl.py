"""Pasting of masks in PyTorch.

Bilinear sampling is separable: the value at pixel (h, w) is ``sum_ij rows[h, i] * mask[i, j] * columns[w, j]``, where
the weights are hat functions that reach one cell to each side. On a CPU, each mask is pasted into its window of the
image by two small matrix products. Windows differ in size, and products of their exact size are faster than all
batched forms, which compute whole images or gather single pixels. On other devices, where starting an op costs more
than its arithmetic, whole images are computed, several at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["forward_torch", "paste_whole_images"]

PIXELS_PER_CHUNK = 1 << 25  # bounds the float values of whole images to 128 MiB


def _binarize_or_quantize(values: Tensor, threshold: float) -> Tensor:
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)


def _hat_weights(positions: Tensor, num_cells: int) -> Tensor:
    """Return the ``(..., L, num_cells)`` weight of each cell at ``(..., L)`` positions in cells."""
    cells = torch.arange(num_cells, dtype=positions.dtype, device=positions.device)
    return (positions[..., None] - cells).abs_().neg_().add_(1).clamp_(min=0)


def _pixel_range(low: float, high: float, num_cells: int, size: int) -> tuple[int, int]:
    """Return the first pixel, and one past the last, that a mask between ``low`` and ``high`` affects."""
    margin = 0.5 * (high - low) / num_cells  # the mask fades out over half a cell
    first, last = max(0.0, low - margin), min(float(size), high + margin)
    return math.floor(first), math.ceil(last)


def _has_finite_area(boxes: Tensor) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return (torch.isfinite(sides) & (sides > 0)).all(dim=1)


def _paste_windows(masks: Tensor, boxes: Tensor, threshold: float, out: Tensor) -> None:
    """Paste each mask into its window of ``out``, in place."""
    height, width = out.shape[1:]
    num_rows, num_columns = masks.shape[1:]
    pixel_y = torch.arange(height, dtype=torch.float32) + 0.5
    pixel_x = torch.arange(width, dtype=torch.float32) + 0.5
    valid = _has_finite_area(boxes).nonzero().squeeze(1)
    for i, (x1, y1, x2, y2) in zip(valid.tolist(), boxes[valid].tolist(), strict=True):
        top, bottom = _pixel_range(y1, y2, num_rows, height)
        left, right = _pixel_range(x1, x2, num_columns, width)
        if top >= bottom or left >= right:
            continue
        rows = _hat_weights((pixel_y[top:bottom] - y1).mul_(num_rows / (y2 - y1)).sub_(0.5), num_rows)
        columns = _hat_weights(
            (pixel_x[left:right] - x1).mul_(num_columns / (x2 - x1)).sub_(0.5), num_columns
        )
        out[i, top:bottom, left:right] = _binarize_or_quantize((rows @ masks[i]) @ columns.T, threshold)


def paste_whole_images(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Compute the values of pasted masks at all pixels by matrix products, without control flow that depends on data.

    Args:
        masks: ``(N, I, J)`` float32.
        boxes: ``(N, 4)`` float32 xyxy in pixels. A box without a finite, positive area gives zeros.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Returns:
        ``(N, height, width)`` float32.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = _has_finite_area(boxes)
    weights = []
    for size, num_cells, low, side in (
        (height, masks.shape[1], boxes[:, 1], sides[:, 1]),
        (width, masks.shape[2], boxes[:, 0], sides[:, 0]),
    ):
        centers = torch.arange(size, dtype=torch.float32, device=boxes.device) + 0.5
        positions = (centers - low[:, None]) * (num_cells / side)[:, None] - 0.5
        # Position -2 is outside of every hat, so invalid boxes get zeros.
        weights.append(_hat_weights(torch.where(valid[:, None], positions, -2.0), num_cells))
    rows, columns = weights  # (N, H, I), (N, W, J)
    return torch.bmm(torch.bmm(rows, masks), columns.transpose(1, 2))


def forward_torch(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Compute ``paste_masks`` in float32."""
    masks, boxes = masks.float(), boxes.float()
    dtype = torch.uint8 if threshold < 0 else torch.bool
    # Pixels outside of a mask have the value 0, which reaches a threshold of 0.
    out = torch.full((masks.shape[0], height, width), threshold == 0, dtype=dtype, device=masks.device)
    if out.numel() == 0 or masks.numel() == 0:
        return out
    if masks.device.type == "cpu":
        _paste_windows(masks, boxes, threshold, out)
        return out
    masks_per_chunk = max(1, PIXELS_PER_CHUNK // (height * width))
    for start in range(0, masks.shape[0], masks_per_chunk):
        part = slice(start, start + masks_per_chunk)
        values = paste_whole_images(masks[part], boxes[part], height, width)
        out[part] = _binarize_or_quantize(values, threshold)
    return out
