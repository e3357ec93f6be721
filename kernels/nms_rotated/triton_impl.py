"""Non-maximum suppression of rotated boxes on the device: overlaps as a bit mask, then greedy suppression."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.box_iou_rotated.triton_impl import load_rotated, rotated_iou
from hydet.kernels.dispatch import triton_interprets
from hydet.kernels.suppression.triton_impl import WORD, launch_suppression, pack_word

__all__ = ["launch_forward"]


@triton.jit
def _forward_overlap_kernel(
    boxes_ptr, groups_ptr, mask_ptr, num_boxes, threshold, BLOCK: tl.constexpr, GROUPED: tl.constexpr
):
    first = tl.program_id(0) * BLOCK
    word = tl.program_id(1)
    if first < (word + 1) * 32:
        i = first + tl.arange(0, BLOCK)
        j = word * 32 + tl.arange(0, 32)
        ax, ay, aw, ah, a_cos, a_sin, a_valid = load_rotated(boxes_ptr, i, 5, 1, i < num_boxes)
        bx, by, bw, bh, b_cos, b_sin, b_valid = load_rotated(boxes_ptr, j, 5, 1, j < num_boxes)
        iou = rotated_iou(
            ax[:, None],
            ay[:, None],
            aw[:, None],
            ah[:, None],
            a_cos[:, None],
            a_sin[:, None],
            a_valid[:, None],
            bx[None, :],
            by[None, :],
            bw[None, :],
            bh[None, :],
            b_cos[None, :],
            b_sin[None, :],
            b_valid[None, :],
        )
        over = (iou > threshold) & (i[:, None] < j[None, :])
        if GROUPED:
            group_i = tl.load(groups_ptr + i, mask=i < num_boxes, other=0)
            group_j = tl.load(groups_ptr + j, mask=j < num_boxes, other=0)
            over = over & (group_i[:, None] == group_j[None, :])
        tl.store(mask_ptr + word.to(tl.int64) * num_boxes + i, pack_word(over), mask=i < num_boxes)


def launch_forward(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """Compute ``nms_rotated`` with overlaps in float32; ``groups`` is None for a single group."""
    order = scores.argsort(descending=True, stable=True)
    num_boxes = boxes.shape[0]
    if num_boxes == 0:
        return order
    boxes = boxes.float()[order].contiguous()
    num_words = triton.cdiv(num_boxes, WORD)
    mask = torch.empty(1, num_words, num_boxes, dtype=torch.int32, device=boxes.device)
    block = 512 if triton_interprets() else 64
    _forward_overlap_kernel[(triton.cdiv(num_boxes, block), num_words)](
        boxes,
        groups[order].contiguous() if groups is not None else boxes,
        mask,
        num_boxes,
        float(iou_threshold),
        BLOCK=block,
        GROUPED=groups is not None,
        num_warps=8,
        enable_fp_fusion=True,
    )
    valid = torch.ones(1, num_boxes, dtype=torch.bool, device=boxes.device)
    return order[launch_suppression(mask, valid)[0]]
