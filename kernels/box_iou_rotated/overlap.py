"""Overlap of pairs of rotated boxes by Green's theorem, vectorized over pairs.

The intersection of boxes A and B is computed in the frame of B, where B is the upright rectangle |x| <= p, |y| <= q.
Let G(x, y) = clamp(y, -q, q) for |x| <= p, and 0 elsewhere. dG/dy is 1 inside B and 0 outside, so by Green's theorem
the area of the intersection is the sum over the four edges of A of the integral of G dx.

The term of each edge is a continuous function of the boxes: nothing depends on the sign of a rounding error. Coinciding
and nearly coinciding edges are therefore no special case. Algorithms that collect crossings and corners and then take
their convex hull fail exactly there.

P is the number of pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gather_columns", "pair_iou", "prepare", "relative_pose"]


def prepare(boxes: Tensor) -> Tensor:
    """Convert ``(N, 5)`` boxes to ``(6, N)`` float64 rows: center x and y, half width and height, cosine and sine."""
    cx, cy, width, height, angle = boxes.double().unbind(dim=1)
    radians = angle.remainder(360).deg2rad()
    return torch.stack([cx, cy, width / 2, height / 2, radians.cos(), radians.sin()])


def gather_columns(rows: Tensor, index: Tensor) -> Tensor:
    """Select columns, for example ``(6, N)`` prepared boxes to ``(6, P)``. Much faster than indexing on a CPU."""
    return rows.gather(1, index.expand(rows.shape[0], -1))


def relative_pose(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pose of boxes A in the frames of boxes B: center x and y, cosine and sine of the relative angle.

    In the image, the axes of B are (cos, -sin) and (sin, cos).
    """
    a_x, a_y, _, _, a_cos, a_sin = a.unbind()
    b_x, b_y, _, _, b_cos, b_sin = b.unbind()
    offset_x, offset_y = a_x - b_x, a_y - b_y
    center_x = (offset_x * b_cos).sub_(offset_y * b_sin)
    center_y = (offset_x * b_sin).add_(offset_y * b_cos)
    cos = (a_cos * b_cos).add_(a_sin * b_sin)
    sin = (a_sin * b_cos).sub_(a_cos * b_sin)
    return center_x, center_y, cos, sin


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the ``(P,)`` intersection areas of pairs of prepared boxes, both ``(6, P)``."""
    # This function dominates the run time, and starting ops dominates this function. So x and y, and opposite edges,
    # share ops where they can.
    center_x, center_y, cos, sin = relative_pose(a, b)
    center = torch.stack([center_x, center_y])
    half_axes = torch.stack([cos, -sin, sin, cos]).view(2, 2, -1).mul_(a[2:4, None])  # (axis, x or y, P)
    # Corners of A in order, (4, 2, P). Edge k goes from corner k to corner k + 1; edge k + 2 is parallel to it and
    # goes back.
    diagonals = torch.stack([half_axes[0] + half_axes[1], half_axes[1] - half_axes[0]])
    x, y = torch.cat([center - diagonals, center + diagonals]).unbind(1)
    axes = half_axes.mul_(2)
    edge_x, edge_y = torch.cat([axes, -axes]).unbind(1)

    # Ends of the part of each edge with |x| <= p. An edge without extent in x contributes nothing.
    p, q = b[2], b[3]
    start_x = x.clamp(min=-p, max=p)
    end_x = start_x.roll(-1, 0)
    slope_step = (edge_x + 1e-300).reciprocal_()  # avoids division by 0 and changes no other edge
    start_y = torch.addcmul(y, (start_x - x).mul_(slope_step).clamp_(0, 1), edge_y)
    end_y = torch.addcmul(y, (end_x - x).mul_(slope_step).clamp_(0, 1), edge_y)

    # Mean of clamp(y, -q, q) along that part. `fraction` is the mean progress from start_in to end_in.
    low = -q
    start_in, end_in = start_y.clamp(min=low, max=q), end_y.clamp(min=low, max=q)
    span, steps = end_in - start_in, end_y.sub(start_y).add_(1e-300)
    fraction = end_y.sub_(end_in).add_(span, alpha=0.5).div_(steps).clamp_(0, 1)
    return start_in.addcmul_(span, fraction).mul_(start_x.sub_(end_x)).sum(dim=0)


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the ``(P,)`` float64 IoU in [0, 1] of pairs of prepared boxes, both ``(6, P)``."""
    area_a, area_b = a[2:4].prod(0).mul_(4), b[2:4].prod(0).mul_(4)
    intersection = _intersection(a, b)
    # For disjoint boxes the sum leaves a rounding error of a few 1e-16 of B, which must become 0.
    intersection.masked_fill_(intersection <= 1e-14 * area_b, 0)
    intersection = torch.minimum(intersection, torch.minimum(area_a, area_b))
    return intersection / (area_a + area_b - intersection)
