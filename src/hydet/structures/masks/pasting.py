"""Paste masks that are relative to a box into the image."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet import kernels
from hydet.structures.boxes import Boxes, box_tensor

__all__ = ["paste_masks_in_image"]


@torch.no_grad()
def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resample each mask over its box and threshold it.

    A mask is sampled bilinearly at the centers of the image's pixels, with zeros around it, so its values fade out over
    half a cell beyond the box. Memory beyond the result is bounded and does not depend on the number of masks.

    Args:
        masks: ``(N, M, M)`` floats, usually probabilities; may be rectangular.
        boxes: N boxes in pixels of the image, which may reach over its border. A box outside the image, without area
            or with a coordinate that is not finite gives an empty mask.
        image_shape: ``(height, width)`` in pixels.
        threshold: pixels with a value of at least ``threshold`` are inside. A negative threshold returns the values.

    Returns:
        ``(N, height, width)`` bool; uint8 ``floor(255 * value)`` if ``threshold`` is negative.

    Raises:
        ValueError: if ``masks`` does not have three dimensions, or the number of boxes differs from that of masks.
    """
    corners = box_tensor(boxes).to(masks.device, torch.float32)
    masks = masks.to(torch.float32)
    if torch.compiler.is_exporting():
        return _paste_with_matmul(masks, corners, image_shape, threshold)
    return kernels.paste_masks(masks, corners, image_shape, threshold)


def _paste_with_matmul(
    masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float
) -> Tensor:
    """Paste with operators that every exported runtime has: two matrix products over the whole image.

    Bilinear sampling is separable: the value at pixel (h, w) is ``sum_ij rows[h, i] mask[i, j] columns[w, j]``, where
    rows and columns are triangle functions around the cell centers that reach one cell to each side.
    """
    is_drawn = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    weights = []
    for size, num_cells, low, high in (
        (image_shape[0], masks.shape[1], boxes[:, 1], boxes[:, 3]),
        (image_shape[1], masks.shape[2], boxes[:, 0], boxes[:, 2]),
    ):
        centers = torch.arange(size, dtype=boxes.dtype, device=boxes.device) + 0.5
        positions = (centers - low[:, None]) * (num_cells / (high - low))[:, None] - 0.5  # (N, L)
        positions = torch.where(is_drawn[:, None], positions, -2.0)
        cells = torch.arange(num_cells, dtype=boxes.dtype, device=boxes.device)
        weights.append((1 - (positions[..., None] - cells).abs()).clamp(min=0))  # (N, L, num_cells)
    rows, columns = weights
    values = torch.bmm(torch.bmm(rows, masks), columns.transpose(1, 2))  # (N, H, W)
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
