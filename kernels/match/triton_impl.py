"""Best ground truth of every anchor on the device, without the matrix of overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets

__all__ = ["launch_match_anchors"]


@triton.jit
def _load_boxes(boxes_ptr, index, stride_box, stride_number, mask):
    start = boxes_ptr + index * stride_box
    x1 = tl.load(start, mask=mask, other=0.0)
    y1 = tl.load(start + stride_number, mask=mask, other=0.0)
    x2 = tl.load(start + 2 * stride_number, mask=mask, other=0.0)
    y2 = tl.load(start + 3 * stride_number, mask=mask, other=0.0)
    area = (x2 - x1) * (y2 - y1)
    usable = tl.abs(area) < float("inf")
    return (
        tl.where(usable, x1, 0.0),
        tl.where(usable, y1, 0.0),
        tl.where(usable, x2, 0.0),
        tl.where(usable, y2, 0.0),
        tl.where(usable, area, 0.0),
    )


@triton.jit
def _iou(t_x1, t_y1, t_x2, t_y2, t_area, x1, y1, x2, y2, area):
    """``(G, R)`` overlaps; IEEE division and no fused multiply-add (see the launch): the same bits as torch."""
    width = tl.minimum(t_x2[:, None], x2[None, :]) - tl.maximum(t_x1[:, None], x1[None, :])
    height = tl.minimum(t_y2[:, None], y2[None, :]) - tl.maximum(t_y1[:, None], y1[None, :])
    shared = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    union = t_area[:, None] + area[None, :] - shared
    return tl.where(shared > 0, tl.div_rn(shared, tl.maximum(union, 1.1754943508222875e-38)), 0.0)


@triton.jit
def _match_kernel(
    anchors_ptr,
    truths_ptr,
    matches_ptr,
    labels_ptr,
    quality_ptr,
    truth_best_ptr,
    num_anchors,
    num_truths,
    stride_anchor,
    stride_anchor_number,
    stride_truth,
    stride_truth_number,
    THRESHOLDS: tl.constexpr,
    LABELS: tl.constexpr,
    LOW_QUALITY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    in_r = r < num_anchors
    x1, y1, x2, y2, area = _load_boxes(anchors_ptr, r.to(tl.int64), stride_anchor, stride_anchor_number, in_r)
    quality = tl.zeros((BLOCK_R,), tl.float32)
    match = tl.zeros((BLOCK_R,), tl.int32)
    for first in range(0, num_truths, BLOCK_G):
        g = first + tl.arange(0, BLOCK_G)
        in_g = g < num_truths
        t_x1, t_y1, t_x2, t_y2, t_area = _load_boxes(truths_ptr, g, stride_truth, stride_truth_number, in_g)
        iou = _iou(t_x1, t_y1, t_x2, t_y2, t_area, x1, y1, x2, y2, area)
        best = tl.max(iou, axis=0)
        which = tl.min(tl.where(iou == best[None, :], g[:, None], num_truths), axis=0)
        match = tl.where(best > quality, which, match)
        quality = tl.maximum(quality, best)
        if LOW_QUALITY:
            # Overlaps are not negative, so their bits order as they do; what is not a new best stays away.
            reached = tl.max(iou, axis=1).to(tl.int32, bitcast=True)
            known = tl.load(truth_best_ptr + g, mask=in_g, other=0)
            tl.atomic_max(truth_best_ptr + g, reached, mask=in_g & (reached > known))
    label = tl.zeros((BLOCK_R,), tl.int32) + LABELS[0]
    for k in tl.static_range(len(THRESHOLDS)):
        label = tl.where(quality >= THRESHOLDS[k], LABELS[k + 1], label)
    tl.store(matches_ptr + r, match.to(tl.int64), mask=in_r)
    tl.store(labels_ptr + r, label.to(tl.int8), mask=in_r)
    if LOW_QUALITY:
        tl.store(quality_ptr + r, quality, mask=in_r)


@triton.jit
def _low_quality_kernel(
    anchors_ptr,
    truths_ptr,
    labels_ptr,
    quality_ptr,
    truth_best_ptr,
    num_anchors,
    num_truths,
    stride_anchor,
    stride_anchor_number,
    stride_truth,
    stride_truth_number,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    in_r = r < num_anchors
    x1, y1, x2, y2, area = _load_boxes(anchors_ptr, r.to(tl.int64), stride_anchor, stride_anchor_number, in_r)
    quality = tl.load(quality_ptr + r, mask=in_r, other=0.0)
    most = tl.max(quality, axis=0)
    chosen = tl.zeros((BLOCK_R,), tl.int32)
    for first in range(0, num_truths, BLOCK_G):
        g = first + tl.arange(0, BLOCK_G)
        in_g = g < num_truths
        best = tl.load(truth_best_ptr + g, mask=in_g, other=0).to(tl.float32, bitcast=True)
        # An anchor that is the best of a ground truth overlaps at least that much with its own match.
        if most >= tl.min(tl.where(best > 0, best, 2.0), axis=0):
            t_x1, t_y1, t_x2, t_y2, t_area = _load_boxes(
                truths_ptr, g, stride_truth, stride_truth_number, in_g
            )
            iou = _iou(t_x1, t_y1, t_x2, t_y2, t_area, x1, y1, x2, y2, area)
            is_best = (iou == best[:, None]) & (iou > 0)
            chosen = tl.maximum(chosen, tl.max(is_best.to(tl.int32), axis=0))
    tl.store(labels_ptr + r, tl.full((BLOCK_R,), 1, tl.int8), mask=in_r & (chosen != 0))


def launch_match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    """See ``match_anchors``; memory is linear in R + G, nothing waits for the device."""
    num_anchors, num_truths = anchors.shape[0], gt_boxes.shape[0]
    matches = torch.zeros(num_anchors, dtype=torch.int64, device=anchors.device)
    match_labels = torch.full((num_anchors,), labels[0], dtype=torch.int8, device=anchors.device)
    if num_anchors == 0 or num_truths == 0:
        return matches, match_labels
    anchors, gt_boxes = anchors.float(), gt_boxes.float()
    quality = torch.empty(num_anchors if allow_low_quality_matches else 1, device=anchors.device)
    truth_best = torch.zeros(num_truths, dtype=torch.int32, device=anchors.device)
    # bounds as the torch path has them, in float32; tuples of constants, so nothing is copied to the device
    bounds = tuple(torch.tensor(thresholds, dtype=torch.float32).tolist())
    block_r, block_g = (4096, 32) if triton_interprets() else (256, 8)
    grid = (triton.cdiv(num_anchors, block_r),)
    strides = (anchors.stride(0), anchors.stride(1), gt_boxes.stride(0), gt_boxes.stride(1))
    _match_kernel[grid](
        anchors,
        gt_boxes,
        matches,
        match_labels,
        quality,
        truth_best,
        num_anchors,
        num_truths,
        *strides,
        THRESHOLDS=bounds,
        LABELS=tuple(int(label) for label in labels),
        LOW_QUALITY=allow_low_quality_matches,
        BLOCK_R=block_r,
        BLOCK_G=block_g,
        enable_fp_fusion=False,
    )
    if allow_low_quality_matches:
        _low_quality_kernel[grid](
            anchors,
            gt_boxes,
            match_labels,
            quality,
            truth_best,
            num_anchors,
            num_truths,
            *strides,
            BLOCK_R=block_r,
            BLOCK_G=block_g,
            enable_fp_fusion=False,
        )
    return matches, match_labels
