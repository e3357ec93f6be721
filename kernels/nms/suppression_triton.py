"""Greedy suppression on the device, from a bit mask of who overlaps whom; shared by upright and rotated NMS.

The mask is ``(B, W, N)`` int32, W = ceil(N / 32): bit j of ``[image, word, i]`` says that box i overlaps box
``32 * word + j`` of the same image by more than the threshold; boxes are sorted by score, and only pairs with
i before j are read. One program for each image then walks the words in order: a box is gone if a staying box
before it overlaps it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets

__all__ = ["WORD", "launch_suppression", "pack_word"]

WORD = 32


@triton.jit
def pack_word(over):
    """A ``(BLOCK, 32)`` mask to ``(BLOCK,)`` int32 words."""
    bits = over.to(tl.int32) << tl.arange(0, 32)[None, :]
    return tl.sum(bits, axis=1)


@triton.jit
def _or(a, b):
    return a | b


@triton.jit
def _or_all(words, BITWISE: tl.constexpr):
    """OR of all words. The interpreter runs a reduction of one's own word by word, but a maximum at once."""
    if BITWISE:
        bit = tl.arange(0, 32)
        any_set = tl.max((words[:, None] >> bit[None, :]) & 1, axis=0)
        return tl.sum(any_set << bit, axis=0)
    else:
        return tl.reduce(words, 0, _or)


@triton.jit
def _suppression_kernel(
    mask_ptr, alive_ptr, keep_ptr, num_boxes, num_words, PADDED: tl.constexpr, BITWISE: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    mask_ptr += image * num_words * num_boxes
    alive_ptr += image * num_boxes
    keep_ptr += image * num_boxes
    every = tl.arange(0, PADDED)
    bit = tl.arange(0, 32)
    keep = tl.zeros((PADDED,), tl.int32)
    word = 0
    while word < num_words:
        row = mask_ptr + word.to(tl.int64) * num_boxes
        # What the staying boxes of earlier words overlap; words of boxes that went are not even read.
        earlier = tl.load(row + every, mask=keep != 0, other=0)
        gone = _or_all(earlier, BITWISE)
        # Within the word: repeat "stays unless a staying box overlaps it" until nothing changes (greedy, since
        # after k rounds the first k boxes are final).
        here = word * 32 + bit
        alive = tl.load(alive_ptr + here, mask=here < num_boxes, other=0).to(tl.int32)
        alive = alive & (1 - ((gone >> bit) & 1))
        own = tl.load(row + here, mask=here < num_boxes, other=0)
        own = own & ((-2) << bit)  # only later boxes: bits above the box's own
        stays = alive
        changed = 1
        while changed != 0:
            over = _or_all(tl.where(stays != 0, own, 0), BITWISE)
            now = alive & (1 - ((over >> bit) & 1))
            changed = tl.sum(tl.abs(now - stays), axis=0)
            stays = now
        tl.store(keep_ptr + here, stays, mask=here < num_boxes)
        packed = tl.sum(stays << bit, axis=0)
        keep = tl.where(every // 32 == word, (packed >> (every % 32)) & 1, keep)
        word += 1


def launch_suppression(mask: Tensor, alive: Tensor, *, bitwise: bool | None = None) -> Tensor:
    """Which boxes stay.

    Args:
        mask: ``(B, W, N)`` int32, see the module; entries with i behind the word's boxes need not be written.
        alive: ``(B, N)`` bool, False for rows that are padding.
        bitwise: how words are joined, see ``_or_all``; None for what suits where it runs.

    Returns:
        ``(B, N)`` bool.
    """
    num_images, num_words, num_boxes = mask.shape
    keep = torch.empty(num_images, num_boxes, dtype=torch.int32, device=mask.device)
    if keep.numel() > 0:
        padded = max(32, triton.next_power_of_2(num_boxes))
        _suppression_kernel[(num_images,)](
            mask,
            alive.to(torch.int32).contiguous(),
            keep,
            num_boxes,
            num_words,
            PADDED=padded,
            BITWISE=triton_interprets() if bitwise is None else bitwise,
            enable_fp_fusion=True,
            num_warps=min(16, max(4, padded // 512)),
        )
    return keep.bool()
