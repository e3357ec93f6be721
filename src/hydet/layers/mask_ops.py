"""Masks that are relative to a box, drawn where the box is."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet import kernels
from hydet.structures import Boxes

__all__ = ["paste_masks_in_image"]


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
    masks = masks.to(torch.float32)
    if torch.compiler.is_exporting():
        return _paste_exportable(masks, corners, image_shape, threshold)
    return kernels.paste_masks(masks, corners, image_shape, threshold)


def _paste_exportable(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float) -> Tensor:
    """The same in operators that any runtime has: two matrix products over the whole image.

    Bilinear sampling is separable: the value at pixel (h, w) is ``sum_ij rows[h, i] mask[i, j] columns[w, j]``, where
    rows and columns are hats over the cells, one cell wide to each side.
    """
    drawn = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    weights = []
    for size, num_cells, low, high in (
        (image_shape[0], masks.shape[1], boxes[:, 1], boxes[:, 3]),
        (image_shape[1], masks.shape[2], boxes[:, 0], boxes[:, 2]),
    ):
        centres = torch.arange(size, dtype=boxes.dtype, device=boxes.device) + 0.5
        positions = (centres - low[:, None]) * (num_cells / (high - low))[:, None] - 0.5  # (N, L)
        positions = torch.where(drawn[:, None], positions, -2.0)
        cells = torch.arange(num_cells, dtype=boxes.dtype, device=boxes.device)
        weights.append((1 - (positions[..., None] - cells).abs()).clamp(min=0))  # (N, L, num_cells)
    rows, columns = weights
    values = torch.bmm(torch.bmm(rows, masks), columns.transpose(1, 2))  # (N, H, W)
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
