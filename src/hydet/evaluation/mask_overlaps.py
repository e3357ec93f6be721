"""Overlaps of masks that stay run-length codes: mask IoU and boundary IoU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from faster_coco_eval import mask as rle

from hydet.data.annotations.rle import RunLengthCode

from .coco_results import RunLengths
from .matching import IOU_THRESHOLDS

__all__ = [
    "DILATION_RATIO",
    "check_dilation_ratio",
    "limit_by_boundaries",
    "mask_areas",
    "mask_boundary",
    "mask_overlaps",
    "to_run_lengths",
]

DILATION_RATIO = 0.02  # width of a boundary over the diagonal of the image, as in the paper


def to_run_lengths(region: RunLengthCode | list[list[float]] | None, size: tuple[int, int]) -> RunLengths:
    """Convert a segmentation in COCO's format (polygons, run lengths or None) to one compressed run-length code.

    Args:
        region: the segmentation; None is a mask without pixels.
        size: (height, width) of the image in pixels.
    """
    height, width = size
    if not region:
        region = {"size": [height, width], "counts": [height * width]}
    if isinstance(region, list):
        return cast("RunLengths", rle.merge(rle.frPyObjects(region, height, width)))
    if isinstance(region["counts"], list):
        return cast("RunLengths", rle.frPyObjects([region], height, width)[0])
    return cast("RunLengths", region)


def mask_areas(masks: Sequence[RunLengths]) -> np.ndarray:
    """Return the ``(D,)`` float64 areas of D masks in square pixels."""
    return np.asarray(rle.area(list(masks)), dtype=np.float64).reshape(-1)


def mask_overlaps(
    masks: Sequence[RunLengths], gt_masks: Sequence[RunLengths], gt_crowd: np.ndarray
) -> np.ndarray:
    """Compute the ``(D, G)`` IoU of masks; for a crowd, the fraction of the mask that lies inside the crowd.

    Args:
        masks: D masks.
        gt_masks: G masks of the same size.
        gt_crowd: ``(G,)`` bool.
    """
    if not masks or not gt_masks:
        return np.zeros((len(masks), len(gt_masks)))
    overlaps = rle.iou(list(masks), list(gt_masks), gt_crowd.astype(int).tolist())
    return np.asarray(overlaps, dtype=np.float64).reshape(len(masks), len(gt_masks))


def check_dilation_ratio(ratio: float) -> float:
    """Return the ratio of a boundary's width to the diagonal of the image.

    Raises:
        ValueError: if it is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"boundary_dilation_ratio must be in (0, 1], got {ratio}")
    return ratio


def limit_by_boundaries(
    overlaps: np.ndarray,
    masks: Sequence[RunLengths],
    gt_masks: Sequence[RunLengths],
    gt_crowd: np.ndarray,
    dilation_ratio: float = DILATION_RATIO,
) -> np.ndarray:
    """Lower the mask IoU of each pair to its boundary IoU, if this is smaller; crowds keep theirs.

    Boundaries are computed one mask at a time, and only for pairs that could match: a pair whose mask IoU is below 0.5
    keeps it, because the minimum is not higher.

    Args:
        overlaps: ``(D, G)`` IoU of the masks, 0 for pairs that need no boundary IoU.
        masks: D masks.
        gt_masks: G masks of the same size.
        gt_crowd: ``(G,)`` bool.
        dilation_ratio: width of a boundary over the diagonal of the image.

    Returns:
        ``(D, G)``.

    Source: Cheng et al. 2021 (arXiv:2103.16562), section 5.
    """
    limited = overlaps.copy()
    pairs = (overlaps >= IOU_THRESHOLDS[0]) & ~gt_crowd
    if not pairs.any():
        return limited
    width = max(1, round(dilation_ratio * math.hypot(*gt_masks[0]["size"])))
    boundaries = {i: mask_boundary(masks[i], width) for i in np.flatnonzero(pairs.any(axis=1)).tolist()}
    for j in np.flatnonzero(pairs.any(axis=0)).tolist():
        rows = np.flatnonzero(pairs[:, j]).tolist()
        iou = mask_overlaps([boundaries[i] for i in rows], [mask_boundary(gt_masks[j], width)], np.zeros(1))
        limited[rows, j] = np.minimum(limited[rows, j], iou[:, 0])
    return limited


def mask_boundary(mask: RunLengths, width: int) -> RunLengths:
    """Return the pixels of a mask that are at most ``width`` rows and columns away from a pixel outside of it.

    Pixels beyond the border of the image count as outside.
    """
    x, y, w, h = np.asarray(rle.toBbox(mask)).astype(int).tolist()
    if w == 0 or h == 0:
        return mask
    pixels = rle.decode(mask)  # (H, W) uint8, column by column as `encode` takes it
    crop = pixels[y : y + h, x : x + w]
    crop[_interior(crop, width)] = 0
    return cast("RunLengths", rle.encode(pixels[:, :, None])[0])


def _interior(crop: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels of which all neighbors within ``width`` rows and columns are set; ``(h, w)`` bool."""
    interior = crop.T > 0  # rows of the transposed crop are contiguous
    size = 2 * width + 1
    for _ in range(2):  # a square window is a row of rows
        window = np.zeros(interior.shape, dtype=bool)
        if interior.shape[1] >= size:
            sums = np.zeros((interior.shape[0], interior.shape[1] + 1), dtype=np.int32)
            np.cumsum(interior, axis=1, out=sums[:, 1:])
            np.equal(sums[:, size:] - sums[:, :-size], size, out=window[:, width:-width])
        interior = np.ascontiguousarray(window.T)
    return interior.T
