"""Non-maximum suppression of upright boxes on the device: overlaps of all images as a bit mask, then greedy suppression."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets
from hydet.kernels.nms_padded.ranking import pack_survivors, rank_boxes
from hydet.kernels.suppression.triton_impl import WORD, launch_suppression, pack_word

__all__ = ["launch_forward", "round_down"]


def round_down(threshold: float) -> float:
    """Return the largest float32 that is not above ``threshold``.

    A float32 exceeds it if and only if it exceeds ``threshold`` in float64, as in torchvision's CPU op.
    """
    rounded = torch.tensor(threshold, dtype=torch.float32)
    if rounded.item() > threshold:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf))
    return rounded.item()


@triton.jit
def _forward_overlap_kernel(
    boxes_ptr, order_ptr, groups_ptr, mask_ptr, num_boxes, num_words, threshold, BLOCK: tl.constexpr, GROUPED: tl.constexpr
):  # fmt: skip
    first = tl.program_id(0) * BLOCK
    word = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    if first < (word + 1) * 32:
        i = first + tl.arange(0, BLOCK)
        j = word * 32 + tl.arange(0, 32)
        in_i = i < num_boxes
        in_j = j < num_boxes
        box_i = image * num_boxes + tl.load(order_ptr + image * num_boxes + i, mask=in_i, other=0)
        box_j = image * num_boxes + tl.load(order_ptr + image * num_boxes + j, mask=in_j, other=0)
        a_x1 = tl.load(boxes_ptr + box_i * 4, mask=in_i, other=0.0).to(tl.float32)
        a_y1 = tl.load(boxes_ptr + box_i * 4 + 1, mask=in_i, other=0.0).to(tl.float32)
        a_x2 = tl.load(boxes_ptr + box_i * 4 + 2, mask=in_i, other=0.0).to(tl.float32)
        a_y2 = tl.load(boxes_ptr + box_i * 4 + 3, mask=in_i, other=0.0).to(tl.float32)
        b_x1 = tl.load(boxes_ptr + box_j * 4, mask=in_j, other=0.0).to(tl.float32)
        b_y1 = tl.load(boxes_ptr + box_j * 4 + 1, mask=in_j, other=0.0).to(tl.float32)
        b_x2 = tl.load(boxes_ptr + box_j * 4 + 2, mask=in_j, other=0.0).to(tl.float32)
        b_y2 = tl.load(boxes_ptr + box_j * 4 + 3, mask=in_j, other=0.0).to(tl.float32)
        width = tl.minimum(a_x2[:, None], b_x2[None, :]) - tl.maximum(a_x1[:, None], b_x1[None, :])
        height = tl.minimum(a_y2[:, None], b_y2[None, :]) - tl.maximum(a_y1[:, None], b_y1[None, :])
        intersection = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
        area_i = (a_x2 - a_x1) * (a_y2 - a_y1)
        area_j = (b_x2 - b_x1) * (b_y2 - b_y1)
        # IEEE division without fused multiply-add (see the launcher) gives the same bits as torch. If a box contains
        # NaN, so do its area and IoU, and NaN exceeds nothing.
        iou = tl.div_rn(intersection, area_i[:, None] + area_j[None, :] - intersection)
        over = (iou > threshold) & (i[:, None] < j[None, :])
        if GROUPED:
            group_i = tl.load(groups_ptr + box_i, mask=in_i, other=0)
            group_j = tl.load(groups_ptr + box_j, mask=in_j, other=0)
            over = over & (group_i[:, None] == group_j[None, :])
        tl.store(mask_ptr + (image * num_words + word) * num_boxes + i, pack_word(over), mask=in_i)


def launch_forward(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``nms_padded`` without a host synchronization."""
    num_images, num_boxes = scores.shape
    order, sorted_valid = rank_boxes(scores, valid)
    if order.numel() == 0:
        return pack_survivors(order, sorted_valid, max_outputs)
    boxes = boxes.contiguous()
    if boxes.dtype == torch.float64:
        boxes = boxes.float()
    num_words = triton.cdiv(num_boxes, WORD)
    mask = torch.empty(num_images, num_words, num_boxes, dtype=torch.int32, device=boxes.device)
    block = 512 if triton_interprets() else 64
    _forward_overlap_kernel[(triton.cdiv(num_boxes, block), num_words, num_images)](
        boxes,
        order,
        groups.contiguous() if groups is not None else order,
        mask,
        num_boxes,
        num_words,
        round_down(iou_threshold),
        BLOCK=block,
        GROUPED=groups is not None,
        enable_fp_fusion=False,
    )
    return pack_survivors(order, launch_suppression(mask, sorted_valid), max_outputs)
