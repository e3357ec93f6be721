"""Cheap tests that select the pairs of rotated boxes whose IoU must be computed.

Most boxes of an image are far apart: their circumscribed circles do not meet, which costs a few operations per pair
where the IoU costs about a hundred. Each test allows for rounding, so it never loses a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.overlap import relative_pose

__all__ = [
    "CIRCLE_TESTS_PER_CHUNK",
    "PAIRS_PER_CHUNK",
    "circles_meet",
    "circumscribed_circles",
    "list_pairs",
    "may_exceed",
    "meeting_pairs",
]

# Temporaries of chunks of this size stay in the cache, and the ops take much longer than it takes to start them.
PAIRS_PER_CHUNK = 1 << 14
CIRCLE_TESTS_PER_CHUNK = 1 << 17


def circumscribed_circles(boxes: Tensor) -> Tensor:
    """Return ``(3, N)`` center x, center y and radius of the circle around each ``(N, 5)`` box.

    The radius is NaN, so that the circle meets nothing, for a box without area or with a value that is not finite.
    """
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    width, height = boxes[:, 2], boxes[:, 3]
    valid = boxes.isfinite().all(dim=1) & (width > 0) & (height > 0)
    # Half the diagonal, enlarged so that rounding loses no pair.
    radius = torch.hypot(width, height) * (0.5 * (1 + 1e-5))
    return torch.stack([boxes[:, 0], boxes[:, 1], radius.masked_fill(~valid, torch.nan)])


def circles_meet(a: Tensor, b: Tensor) -> Tensor:
    """Return True for each pair of circles that meet; both ``(3, P)``, or shapes that broadcast."""
    squared_distance = (a[0] - b[0]).square_()
    squared_distance += (a[1] - b[1]).square_()
    return squared_distance <= (a[2] + b[2]).square_()


def may_exceed(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """Return True for each pair of prepared boxes whose IoU may exceed ``threshold``.

    Replaces A by its bounding rectangle in the frame of B, which intersects B at least as much as A does. Costs a
    quarter of ``pair_iou``.

    Args:
        a: ``(6, P)`` prepared boxes, or a shape that broadcasts with ``b``.
        b: prepared boxes in the same layout.
        threshold: IoU threshold.
    """
    distance_x, distance_y, cos, sin = (value.abs_() for value in relative_pose(a, b))
    half_width, half_height, p, q = a[2], a[3], b[2], b[3]
    reach_x = torch.addcmul(half_width * cos, half_height, sin)  # half sides of the bounding rectangle
    reach_y = cos.mul_(half_height).addcmul_(half_width, sin)
    overlap_x = torch.minimum(torch.minimum(reach_x, p).mul_(2), reach_x.add_(p).sub_(distance_x))
    overlap_y = torch.minimum(torch.minimum(reach_y, q).mul_(2), reach_y.add_(q).sub_(distance_y))
    intersection = overlap_x.clamp_(min=0).mul_(overlap_y.clamp_(min=0))
    area_a, area_b = half_width * half_height * 4, p * q * 4
    # IoU > t is equivalent to intersection * (1 + t) > t * (area_a + area_b). The factor 1.001 covers rounding.
    bound = torch.minimum(intersection, area_a).mul_((1 + threshold) * (1 + 1e-3))
    return bound > (area_a + area_b).mul_(threshold)


def list_pairs(mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows and columns of the True entries of a matrix, row by row, ``PAIRS_PER_CHUNK`` at most per chunk."""
    # Flat positions are cheaper than the pair of indices that nonzero returns.
    for positions in mask.flatten().nonzero().squeeze(1).split(PAIRS_PER_CHUNK):
        if positions.shape[0] > 0:
            row = positions.div(mask.shape[1], rounding_mode="floor")
            yield row, positions - row * mask.shape[1]


def meeting_pairs(
    a: Tensor, b: Tensor, extra_condition: Callable[[slice], Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs of circles that meet, a chunk at a time.

    Args:
        a: ``(3, N)`` circles.
        b: ``(3, M)`` circles.
        extra_condition: function from a slice of ``a`` to a ``(rows, M)`` mask that pairs must satisfy too.

    Yields:
        Indices into ``a`` and into ``b``, ``PAIRS_PER_CHUNK`` at most, in the order of ``a``.
    """
    num_a, num_b = a.shape[1], b.shape[1]
    rows_per_chunk = max(1, CIRCLE_TESTS_PER_CHUNK // max(1, num_b))
    for first in range(0, num_a if num_b > 0 else 0, rows_per_chunk):
        rows = slice(first, first + rows_per_chunk)
        meet = circles_meet(a[:, rows, None], b[:, None])
        if extra_condition is not None:
            meet &= extra_condition(rows)
        for i, j in list_pairs(meet):
            yield i + first, j
