"""Overlap of rotated boxes in plain torch.

The area shared by boxes A and B is found in B's frame, where B is the upright rectangle |x| <= p, |y| <= q.
With G(x, y) = clamp(y, -q, q) + q where |x| <= p and 0 elsewhere, dG/dy is 1 inside B and 0 outside, so Green's
theorem turns the area into the sum over A's four edges of the integral of G dx. Each edge's term is continuous
in the boxes: nothing is decided from the sign of a rounding error, so edges that coincide, or nearly do, are no
special case (algorithms that collect crossings and corners and then take a hull fail exactly there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = [
    "box_iou_rotated_reference",
    "circles",
    "may_exceed",
    "meeting_pairs",
    "pair_iou",
    "pick",
    "prepare",
]

# Pairs handled at once: temporaries stay in a cache, and starting an op costs little beside its work.
PAIRS_PER_CHUNK = 1 << 14
CIRCLE_TESTS_PER_CHUNK = 1 << 17


def prepare(boxes: Tensor) -> Tensor:
    """``(N, 5)`` boxes to ``(6, N)`` float64 rows: centre, half sides, cosine and sine of the angle."""
    cx, cy, width, height, angle = boxes.double().unbind(dim=1)
    radians = angle.remainder(360).deg2rad()
    return torch.stack([cx, cy, width / 2, height / 2, radians.cos(), radians.sin()])


def pick(rows: Tensor, index: Tensor) -> Tensor:
    """Columns, such as those of prepared boxes, ``(6, P)``; gather is several times faster than indexing here."""
    return rows.gather(1, index.expand(rows.shape[0], -1))


def _pair_areas(a: Tensor, b: Tensor) -> Tensor:
    """Shared areas of P pairs of prepared boxes, both ``(6, P)``."""
    # A's centre and half axes in B's frame. In the image B's axes are (cos, -sin) and (sin, cos).
    offset_x, offset_y = a[0] - b[0], a[1] - b[1]
    half_width, half_height, p, q = a[2], a[3], b[2], b[3]
    center_x = offset_x * b[4] - offset_y * b[5]
    center_y = offset_x * b[5] + offset_y * b[4]
    cos = a[4] * b[4] + a[5] * b[5]
    sin = a[5] * b[4] - a[4] * b[5]
    ux, uy = half_width * cos, half_width * -sin
    vx, vy = half_height * sin, half_height * cos

    # Corners around A, (4, P); edge k goes from corner k to corner k + 1.
    left, right = center_x - ux, center_x + ux
    x = torch.stack([left - vx, right - vx, right + vx, left + vx])
    low, high = center_y - uy, center_y + uy
    y = torch.stack([low - vy, high - vy, high + vy, low + vy])
    edge_x, edge_y = x.roll(-1, 0).sub_(x), y.roll(-1, 0).sub_(y)

    # The part of each edge with |x| <= p, as x and y of its ends. An edge with no extent in x adds nothing.
    start_x = x.clamp(min=-p, max=p)
    end_x = start_x.roll(-1, 0)
    slope_step = edge_x.add_(1e-300).reciprocal_()  # no division by 0; changes no other edge
    start_y = (start_x - x).mul_(slope_step).clamp_(0, 1).mul_(edge_y).add_(y)
    end_y = (end_x - x).mul_(slope_step).clamp_(0, 1).mul_(edge_y).add_(y)

    # Mean of clamp(y, -q, q) along that part: `rising` is how far through the clamped range it is on average.
    low, high = torch.minimum(start_y, end_y), torch.maximum(start_y, end_y)
    low_in, high_in = low.clamp(min=-q, max=q), high.clamp(min=-q, max=q)
    span = high_in - low_in
    rising = span.mul(0.5).add_(high).sub_(high_in).div_(high.sub_(low).clamp_(min=1e-300)).clamp_(0, 1)
    mean = span.mul_(rising).add_(low_in).add_(q)
    return mean.mul_(end_x.sub_(start_x)).sum(dim=0).neg_()


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of P pairs of prepared boxes, ``(6, P)`` each, as ``(P,)`` float64 in [0, 1]."""
    area_a, area_b = 4 * a[2] * a[3], 4 * b[2] * b[3]
    shared = _pair_areas(a, b)
    # what is left of the sum where nothing is shared is rounding, below a few 1e-16 of B: make it 0
    shared.masked_fill_(shared <= 1e-14 * area_b, 0)
    shared = torch.minimum(shared, torch.minimum(area_a, area_b))
    return shared / (area_a + area_b - shared)


def may_exceed(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """Which of P pairs of prepared boxes can have an IoU over a threshold, at a quarter of what ``pair_iou`` costs.

    A is replaced by the upright rectangle around it in B's frame: that shares at least as much with B.
    """
    x, y, half_width, half_height, cos_a, sin_a = a.unbind()
    center_x, center_y, p, q, cos_b, sin_b = b.unbind()
    offset_x, offset_y = x - center_x, y - center_y
    away_x = (offset_x * cos_b).sub_(offset_y * sin_b).abs_()
    away_y = (offset_x * sin_b).add_(offset_y * cos_b).abs_()
    cos = (cos_a * cos_b).add_(sin_a * sin_b).abs_()
    sin = (sin_a * cos_b).sub_(cos_a * sin_b).abs_()
    reach_x = (half_width * cos).add_(half_height * sin)
    reach_y = (half_width * sin).add_(half_height * cos)
    shared_x = torch.minimum(torch.minimum(reach_x, p).mul_(2), reach_x.add_(p).sub_(away_x))
    shared_y = torch.minimum(torch.minimum(reach_y, q).mul_(2), reach_y.add_(q).sub_(away_y))
    area_a, area_b = (half_width * half_height).mul_(4), (p * q).mul_(4)
    shared = torch.minimum(shared_x.clamp_(min=0).mul_(shared_y.clamp_(min=0)), area_a)
    # a little more than is known to be shared, so that no rounding loses a pair
    return shared.mul_((1 + threshold) * (1 + 1e-3)) > area_a.add_(area_b).mul_(threshold)


def circles(boxes: Tensor) -> Tensor:
    """``(3, N)``: centre and radius of the circle around each box. A box without area has radius NaN: it meets nothing."""
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    width, height = boxes[:, 2], boxes[:, 3]
    usable = boxes.isfinite().all(dim=1) & (width > 0) & (height > 0)
    # Half the diagonal, a little longer, so that no rounding loses a pair.
    radius = torch.hypot(width, height) * (0.5 * (1 + 1e-5))
    return torch.stack([boxes[:, 0], boxes[:, 1], radius.masked_fill(~usable, torch.nan)])


def meeting_pairs(
    a: Tensor, b: Tensor, also: Callable[[slice], Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of the pairs whose circumscribed circles meet, a few at a time.

    Args:
        a: ``(3, N)`` circles.
        b: ``(3, M)`` circles.
        also: for a slice of ``a``, a ``(rows, M)`` mask of further conditions.

    Yields:
        (indices into ``a``, indices into ``b``), at most ``PAIRS_PER_CHUNK`` each, ordered by the former.
    """
    num_a, num_b = a.shape[1], b.shape[1]
    rows_per_chunk = max(1, CIRCLE_TESTS_PER_CHUNK // max(1, num_b))
    for first in range(0, num_a if num_b > 0 else 0, rows_per_chunk):
        rows = slice(first, first + rows_per_chunk)
        distance = (a[0, rows, None] - b[0]).square_()
        distance += (a[1, rows, None] - b[1]).square_()
        meet = distance <= (a[2, rows, None] + b[2]).square_()
        if also is not None:
            meet &= also(rows)
        # flat positions of the mask, which is cheaper than a pair of indices from nonzero
        positions = meet.flatten().nonzero().squeeze(1)
        for part in positions.split(PAIRS_PER_CHUNK):
            if part.shape[0] > 0:
                row = part.div(num_b, rounding_mode="floor")
                yield row + first, part - row * num_b


def box_iou_rotated_reference(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """See ``box_iou_rotated``; all arithmetic in float64."""
    iou = torch.zeros(boxes1.shape[0], boxes2.shape[0], dtype=torch.float32, device=boxes1.device)
    prepared1, prepared2 = prepare(boxes1), prepare(boxes2)
    flat = iou.view(-1)
    for i, j in meeting_pairs(circles(boxes1), circles(boxes2)):
        values = pair_iou(pick(prepared1, i), pick(prepared2, j))
        flat[i * boxes2.shape[0] + j] = values.float()
    return iou
