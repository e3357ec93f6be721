"""Overlap of rotated boxes in plain torch.

The area shared by boxes A and B is found in B's frame, where B is the upright rectangle |x| <= p, |y| <= q.
With G(x, y) = clamp(y, -q, q) where |x| <= p and 0 elsewhere, dG/dy is 1 inside B and 0 outside, so Green's
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
    "circles_meet",
    "listed",
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


def _in_frame(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and y of A's centres in B's frames, and cosine and sine of how A is turned there.

    In the image B's axes are (cos, -sin) and (sin, cos).
    """
    a_x, a_y, _, _, a_cos, a_sin = a.unbind()
    b_x, b_y, _, _, b_cos, b_sin = b.unbind()
    offset_x, offset_y = a_x - b_x, a_y - b_y
    center_x = (offset_x * b_cos).sub_(offset_y * b_sin)
    center_y = (offset_x * b_sin).add_(offset_y * b_cos)
    cos = (a_cos * b_cos).add_(a_sin * b_sin)
    sin = (a_sin * b_cos).sub_(a_cos * b_sin)
    return center_x, center_y, cos, sin


def _pair_areas(a: Tensor, b: Tensor) -> Tensor:
    """Shared areas of P pairs of prepared boxes, both ``(6, P)``."""
    # This is where the time goes, most of it in starting ops: x and y, and opposite edges, share one where they can.
    center_x, center_y, cos, sin = _in_frame(a, b)
    center = torch.stack([center_x, center_y])
    half_axes = torch.stack([cos, -sin, sin, cos]).view(2, 2, -1).mul_(a[2:4, None])  # (axis, x or y, P)
    # Corners around A, (4, 2, P); edge k goes from corner k to corner k + 1, edge k + 2 back in parallel to it.
    diagonals = torch.stack([half_axes[0] + half_axes[1], half_axes[1] - half_axes[0]])
    x, y = torch.cat([center - diagonals, center + diagonals]).unbind(1)
    axes = half_axes.mul_(2)
    edge_x, edge_y = torch.cat([axes, -axes]).unbind(1)

    # The part of each edge with |x| <= p, as x and y of its ends. An edge with no extent in x adds nothing.
    p, q = b[2], b[3]
    start_x = x.clamp(min=-p, max=p)
    end_x = start_x.roll(-1, 0)
    slope_step = (edge_x + 1e-300).reciprocal_()  # no division by 0; changes no other edge
    start_y = torch.addcmul(y, (start_x - x).mul_(slope_step).clamp_(0, 1), edge_y)
    end_y = torch.addcmul(y, (end_x - x).mul_(slope_step).clamp_(0, 1), edge_y)

    # Mean of clamp(y, -q, q) along that part: `done` is how far it is from start to end within the range on average.
    low = -q
    start_in, end_in = start_y.clamp(min=low, max=q), end_y.clamp(min=low, max=q)
    span, steps = end_in - start_in, end_y.sub(start_y).add_(1e-300)
    done = end_y.sub_(end_in).add_(span, alpha=0.5).div_(steps).clamp_(0, 1)
    return start_in.addcmul_(span, done).mul_(start_x.sub_(end_x)).sum(dim=0)


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of P pairs of prepared boxes, ``(6, P)`` each, as ``(P,)`` float64 in [0, 1]."""
    area_a, area_b = a[2:4].prod(0).mul_(4), b[2:4].prod(0).mul_(4)
    shared = _pair_areas(a, b)
    # what is left of the sum where nothing is shared is rounding, below a few 1e-16 of B: make it 0
    shared.masked_fill_(shared <= 1e-14 * area_b, 0)
    shared = torch.minimum(shared, torch.minimum(area_a, area_b))
    return shared / (area_a + area_b - shared)


def may_exceed(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """Which pairs of prepared boxes can have an IoU over a threshold, at a quarter of what ``pair_iou`` costs.

    A is replaced by the upright rectangle around it in B's frame: that shares at least as much with B. ``(6, P)`` each,
    or other shapes that broadcast.
    """
    away_x, away_y, cos, sin = (value.abs_() for value in _in_frame(a, b))
    half_width, half_height, p, q = a[2], a[3], b[2], b[3]
    reach_x = torch.addcmul(half_width * cos, half_height, sin)  # half sides of the rectangle
    reach_y = cos.mul_(half_height).addcmul_(half_width, sin)
    shared_x = torch.minimum(torch.minimum(reach_x, p).mul_(2), reach_x.add_(p).sub_(away_x))
    shared_y = torch.minimum(torch.minimum(reach_y, q).mul_(2), reach_y.add_(q).sub_(away_y))
    shared = shared_x.clamp_(min=0).mul_(shared_y.clamp_(min=0))
    area_a, area_b = half_width * half_height * 4, p * q * 4
    # a little more than is known to be shared, so that no rounding loses a pair
    most = torch.minimum(shared, area_a).mul_((1 + threshold) * (1 + 1e-3))
    return most > (area_a + area_b).mul_(threshold)


def circles(boxes: Tensor) -> Tensor:
    """``(3, N)``: centre and radius of the circle around each box. A box without area has radius NaN: it meets nothing."""
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    width, height = boxes[:, 2], boxes[:, 3]
    usable = boxes.isfinite().all(dim=1) & (width > 0) & (height > 0)
    # Half the diagonal, a little longer, so that no rounding loses a pair.
    radius = torch.hypot(width, height) * (0.5 * (1 + 1e-5))
    return torch.stack([boxes[:, 0], boxes[:, 1], radius.masked_fill(~usable, torch.nan)])


def circles_meet(a: Tensor, b: Tensor) -> Tensor:
    """Which pairs of circles meet, ``(3, P)`` each, or other shapes that broadcast."""
    distance = (a[0] - b[0]).square_()
    distance += (a[1] - b[1]).square_()
    return distance <= (a[2] + b[2]).square_()


def listed(mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of what is True in a table, at most ``PAIRS_PER_CHUNK`` at a time, ordered by the former."""
    # flat positions of the mask, which is cheaper than a pair of indices from nonzero
    for part in mask.flatten().nonzero().squeeze(1).split(PAIRS_PER_CHUNK):
        if part.shape[0] > 0:
            row = part.div(mask.shape[1], rounding_mode="floor")
            yield row, part - row * mask.shape[1]


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
        meet = circles_meet(a[:, rows, None], b[:, None])
        if also is not None:
            meet &= also(rows)
        for i, j in listed(meet):
            yield i + first, j


def box_iou_rotated_reference(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """See ``box_iou_rotated``; all arithmetic in float64."""
    iou = torch.zeros(boxes1.shape[0], boxes2.shape[0], dtype=torch.float32, device=boxes1.device)
    prepared1, prepared2 = prepare(boxes1), prepare(boxes2)
    flat = iou.view(-1)
    for i, j in meeting_pairs(circles(boxes1), circles(boxes2)):
        values = pair_iou(pick(prepared1, i), pick(prepared2, j))
        flat[i * boxes2.shape[0] + j] = values.float()
    return iou
