"""Matching of anchors as Triton kernels, without the matrix of IoUs. R anchors, G ground-truth boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets

__all__ = ["launch_forward"]


@triton.jit
def _load_boxes(boxes_ptr, index, stride_box, stride_field, mask):
    start = boxes_ptr + index * stride_box
    x1 = tl.load(start, mask=mask, other=0.0)
    y1 = tl.load(start + stride_field, mask=mask, other=0.0)
    x2 = tl.load(start + 2 * stride_field, mask=mask, other=0.0)
    y2 = tl.load(start + 3 * stride_field, mask=mask, other=0.0)
    area = (x2 - x1) * (y2 - y1)
    valid = tl.abs(area) < float("inf")
    return (
        tl.where(valid, x1, 0.0),
        tl.where(valid, y1, 0.0),
        tl.where(valid, x2, 0.0),
        tl.where(valid, y2, 0.0),
        tl.where(valid, area, 0.0),
    )


@triton.jit
def _iou(gt_x1, gt_y1, gt_x2, gt_y2, gt_area, x1, y1, x2, y2, area):
    """Return ``(G, R)`` IoUs.

    IEEE division without fused multiply-add (see the launcher) gives the same bits as torch.
    """
    width = tl.minimum(gt_x2[:, None], x2[None, :]) - tl.maximum(gt_x1[:, None], x1[None, :])
    height = tl.minimum(gt_y2[:, None], y2[None, :]) - tl.maximum(gt_y1[:, None], y1[None, :])
    intersection = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    union = gt_area[:, None] + area[None, :] - intersection
    return tl.where(intersection > 0, tl.div_rn(intersection, tl.maximum(union, 1.1754943508222875e-38)), 0.0)


@triton.jit
def _forward_match_kernel(
    anchors_ptr,
    gt_boxes_ptr,
    matches_ptr,
    labels_ptr,
    best_iou_ptr,
    gt_best_ptr,
    num_anchors,
    num_gt,
    stride_anchor,
    stride_anchor_field,
    stride_gt,
    stride_gt_field,
    THRESHOLDS: tl.constexpr,
    LABELS: tl.constexpr,
    LOW_QUALITY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    in_r = r < num_anchors
    x1, y1, x2, y2, area = _load_boxes(anchors_ptr, r.to(tl.int64), stride_anchor, stride_anchor_field, in_r)
    best_iou = tl.zeros((BLOCK_R,), tl.float32)
    match = tl.zeros((BLOCK_R,), tl.int32)
    for first in range(0, num_gt, BLOCK_G):
        g = first + tl.arange(0, BLOCK_G)
        in_g = g < num_gt
        gt_x1, gt_y1, gt_x2, gt_y2, gt_area = _load_boxes(gt_boxes_ptr, g, stride_gt, stride_gt_field, in_g)
        iou = _iou(gt_x1, gt_y1, gt_x2, gt_y2, gt_area, x1, y1, x2, y2, area)
        best = tl.max(iou, axis=0)
        best_index = tl.min(tl.where(iou == best[None, :], g[:, None], num_gt), axis=0)
        match = tl.where(best > best_iou, best_index, match)
        best_iou = tl.maximum(best_iou, best)
        if LOW_QUALITY:
            # IoUs are not negative, so their bits order like the values. The mask saves most atomic operations.
            best_bits = tl.max(iou, axis=1).to(tl.int32, bitcast=True)
            known_bits = tl.load(gt_best_ptr + g, mask=in_g, other=0)
            tl.atomic_max(gt_best_ptr + g, best_bits, mask=in_g & (best_bits > known_bits))
    label = tl.zeros((BLOCK_R,), tl.int32) + LABELS[0]
    for k in tl.static_range(len(THRESHOLDS)):
        label = tl.where(best_iou >= THRESHOLDS[k], LABELS[k + 1], label)
    tl.store(matches_ptr + r, match.to(tl.int64), mask=in_r)
    tl.store(labels_ptr + r, label.to(tl.int8), mask=in_r)
    if LOW_QUALITY:
        tl.store(best_iou_ptr + r, best_iou, mask=in_r)


@triton.jit
def _forward_low_quality_kernel(
    anchors_ptr,
    gt_boxes_ptr,
    labels_ptr,
    best_iou_ptr,
    gt_best_ptr,
    num_anchors,
    num_gt,
    stride_anchor,
    stride_anchor_field,
    stride_gt,
    stride_gt_field,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    in_r = r < num_anchors
    x1, y1, x2, y2, area = _load_boxes(anchors_ptr, r.to(tl.int64), stride_anchor, stride_anchor_field, in_r)
    best_iou = tl.load(best_iou_ptr + r, mask=in_r, other=0.0)
    highest = tl.max(best_iou, axis=0)
    is_low_quality_match = tl.zeros((BLOCK_R,), tl.int32)
    for first in range(0, num_gt, BLOCK_G):
        g = first + tl.arange(0, BLOCK_G)
        in_g = g < num_gt
        best = tl.load(gt_best_ptr + g, mask=in_g, other=0).to(tl.float32, bitcast=True)
        # The best anchor of a ground truth overlaps its own match at least as much, so blocks that stay below the best
        # IoU of all these ground truths are skipped.
        if highest >= tl.min(tl.where(best > 0, best, 2.0), axis=0):
            gt_x1, gt_y1, gt_x2, gt_y2, gt_area = _load_boxes(
                gt_boxes_ptr, g, stride_gt, stride_gt_field, in_g
            )
            iou = _iou(gt_x1, gt_y1, gt_x2, gt_y2, gt_area, x1, y1, x2, y2, area)
            is_best = (iou == best[:, None]) & (iou > 0)
            is_low_quality_match = tl.maximum(is_low_quality_match, tl.max(is_best.to(tl.int32), axis=0))
    tl.store(labels_ptr + r, tl.full((BLOCK_R,), 1, tl.int8), mask=in_r & (is_low_quality_match != 0))


def launch_forward(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    """Compute ``match_anchors`` with memory linear in R + G and without a host synchronization."""
    num_anchors, num_gt = anchors.shape[0], gt_boxes.shape[0]
    matches = torch.zeros(num_anchors, dtype=torch.int64, device=anchors.device)
    match_labels = torch.full((num_anchors,), labels[0], dtype=torch.int8, device=anchors.device)
    if num_anchors == 0 or num_gt == 0:
        return matches, match_labels
    anchors, gt_boxes = anchors.float(), gt_boxes.float()
    best_iou = torch.empty(num_anchors if allow_low_quality_matches else 1, device=anchors.device)
    gt_best = torch.zeros(num_gt, dtype=torch.int32, device=anchors.device)
    # Round the bounds to float32 as the PyTorch implementation does. As compile-time constants they need no copy to the
    # device.
    bounds = tuple(torch.tensor(thresholds, dtype=torch.float32).tolist())
    block_r, block_g = (4096, 32) if triton_interprets() else (256, 8)
    grid = (triton.cdiv(num_anchors, block_r),)
    strides = (anchors.stride(0), anchors.stride(1), gt_boxes.stride(0), gt_boxes.stride(1))
    _forward_match_kernel[grid](
        anchors,
        gt_boxes,
        matches,
        match_labels,
        best_iou,
        gt_best,
        num_anchors,
        num_gt,
        *strides,
        THRESHOLDS=bounds,
        LABELS=tuple(int(label) for label in labels),
        LOW_QUALITY=allow_low_quality_matches,
        BLOCK_R=block_r,
        BLOCK_G=block_g,
        enable_fp_fusion=False,
    )
    if allow_low_quality_matches:
        _forward_low_quality_kernel[grid](
            anchors,
            gt_boxes,
            match_labels,
            best_iou,
            gt_best,
            num_anchors,
            num_gt,
            *strides,
            BLOCK_R=block_r,
            BLOCK_G=block_g,
            enable_fp_fusion=False,
        )
    return matches, match_labels
