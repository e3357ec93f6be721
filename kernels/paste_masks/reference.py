"""Pasting in plain torch.

Bilinear sampling is separable: the value at pixel (h, w) is ``sum_ij rows[h, i] mask[i, j] columns[w, j]`` with hats
over the cells, one cell wide to each side, so that each window is two small matrix products. Windows have sizes of
their own, and products of their size beat every batched form: those either compute whole images or gather pixel by
pixel. On devices where a launch costs more than the arithmetic, whole images are computed, some at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["paste_masks_reference"]

DENSE_PIXELS = 1 << 25  # how many float pixels are held at a time where windows are not used (128 MiB)


def _decide(values: Tensor, threshold: float) -> Tensor:
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)


def _hats(positions: Tensor, num_cells: int) -> Tensor:
    """Weights of the cells at positions counted in cells: ``(..., L)`` to ``(..., L, num_cells)``."""
    cells = torch.arange(num_cells, dtype=positions.dtype, device=positions.device)
    return (positions[..., None] - cells).abs_().neg_().add_(1).clamp_(min=0)


def _reach(low: float, high: float, num_cells: int, size: int) -> tuple[int, int]:
    """First pixel and one past the last that a mask between ``low`` and ``high`` touches."""
    margin = 0.5 * (high - low) / num_cells
    first, last = max(0.0, low - margin), min(float(size), high + margin)
    return math.floor(first), math.ceil(last)


def _drawn(boxes: Tensor) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return (torch.isfinite(sides) & (sides > 0)).all(dim=1)


def _paste_windows(masks: Tensor, boxes: Tensor, threshold: float, out: Tensor) -> None:
    height, width = out.shape[1:]
    num_rows, num_columns = masks.shape[1:]
    down = torch.arange(height, dtype=torch.float32) + 0.5
    across = torch.arange(width, dtype=torch.float32) + 0.5
    drawn = _drawn(boxes).nonzero().squeeze(1)
    for i, (x1, y1, x2, y2) in zip(drawn.tolist(), boxes[drawn].tolist(), strict=True):
        top, bottom = _reach(y1, y2, num_rows, height)
        left, right = _reach(x1, x2, num_columns, width)
        if top >= bottom or left >= right:
            continue
        rows = _hats((down[top:bottom] - y1).mul_(num_rows / (y2 - y1)).sub_(0.5), num_rows)
        columns = _hats((across[left:right] - x1).mul_(num_columns / (x2 - x1)).sub_(0.5), num_columns)
        out[i, top:bottom, left:right] = _decide((rows @ masks[i]) @ columns.T, threshold)


def _paste_whole(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    drawn = _drawn(boxes)
    weights = []
    for size, num_cells, low, side in (
        (height, masks.shape[1], boxes[:, 1], sides[:, 1]),
        (width, masks.shape[2], boxes[:, 0], sides[:, 0]),
    ):
        centres = torch.arange(size, dtype=torch.float32, device=boxes.device) + 0.5
        positions = (centres - low[:, None]) * (num_cells / side)[:, None] - 0.5
        weights.append(_hats(torch.where(drawn[:, None], positions, -2.0), num_cells))
    rows, columns = weights  # (N, H, I), (N, W, J)
    return torch.bmm(torch.bmm(rows, masks), columns.transpose(1, 2))


def paste_masks_reference(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """See ``paste_masks``; computes in float32."""
    masks, boxes = masks.float(), boxes.float()
    dtype = torch.uint8 if threshold < 0 else torch.bool
    out = torch.full((masks.shape[0], height, width), threshold == 0, dtype=dtype, device=masks.device)
    if out.numel() == 0 or masks.numel() == 0:
        return out
    if masks.device.type == "cpu":
        _paste_windows(masks, boxes, threshold, out)
        return out
    step = max(1, DENSE_PIXELS // (height * width))
    for start in range(0, masks.shape[0], step):
        part = slice(start, start + step)
        out[part] = _decide(_paste_whole(masks[part], boxes[part], height, width), threshold)
    return out
