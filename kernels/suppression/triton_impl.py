"""Greedy suppression on the device, from a bit mask of overlaps.

The mask is ``(B, W, N)`` int32 with W = ceil(N / 32). Bit j of ``[image, word, i]`` is set if box i overlaps box
``32 * word + j`` of the same image by more than the threshold. Boxes are sorted by score, and only pairs with i before
j are read. One program per image then visits the words in order and drops every box that a kept box before it overlaps.
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
    """Pack a ``(BLOCK, 32)`` mask into ``(BLOCK,)`` int32 words."""
    bits = over.to(tl.int32) << tl.arange(0, 32)[None, :]
    return tl.sum(bits, axis=1)


@triton.jit
def _or(a, b):
    return a | b


@triton.jit
def _or_all(words, BITWISE: tl.constexpr):
    """Return the OR of all words. ``BITWISE`` takes the maximum of each bit instead.

    The interpreter runs a custom reduction one word at a time, but computes a maximum in one operation.
    """
    if BITWISE:
        bit = tl.arange(0, 32)
        any_set = tl.max((words[:, None] >> bit[None, :]) & 1, axis=0)
        return tl.sum(any_set << bit, axis=0)
    else:
        return tl.reduce(words, 0, _or)


@triton.jit
def _forward_kernel(
    mask_ptr, valid_ptr, keep_ptr, num_boxes, num_words, PADDED: tl.constexpr, BITWISE: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    mask_ptr += image * num_words * num_boxes
    valid_ptr += image * num_boxes
    keep_ptr += image * num_boxes
    every = tl.arange(0, PADDED)
    bit = tl.arange(0, 32)
    keep = tl.zeros((PADDED,), tl.int32)
    word = 0
    while word < num_words:
        row = mask_ptr + word.to(tl.int64) * num_boxes
        # Boxes that kept boxes of earlier words overlap. Words of dropped boxes are not read.
        earlier = tl.load(row + every, mask=keep != 0, other=0)
        suppressed = _or_all(earlier, BITWISE)
        # Within the word, repeat "keep a box unless a kept box overlaps it" until nothing changes. The result is
        # greedy, because after k rounds the first k boxes are final.
        box = word * 32 + bit
        candidate = tl.load(valid_ptr + box, mask=box < num_boxes, other=0).to(tl.int32)
        candidate = candidate & (1 - ((suppressed >> bit) & 1))
        overlaps = tl.load(row + box, mask=box < num_boxes, other=0)
        overlaps = overlaps & ((-2) << bit)  # later boxes only: the bits above that of the box itself
        word_keep = candidate
        changed = 1
        while changed != 0:
            also_suppressed = _or_all(tl.where(word_keep != 0, overlaps, 0), BITWISE)
            new_keep = candidate & (1 - ((also_suppressed >> bit) & 1))
            changed = tl.sum(tl.abs(new_keep - word_keep), axis=0)
            word_keep = new_keep
        tl.store(keep_ptr + box, word_keep, mask=box < num_boxes)
        packed = tl.sum(word_keep << bit, axis=0)
        keep = tl.where(every // 32 == word, (packed >> (every % 32)) & 1, keep)
        word += 1


def launch_suppression(mask: Tensor, valid: Tensor, *, bitwise: bool | None = None) -> Tensor:
    """Return the boxes that greedy suppression keeps.

    Args:
        mask: ``(B, W, N)`` int32 overlaps, see the module. Entries with i behind the boxes of the word are not used.
        valid: ``(B, N)`` bool, False for padding.
        bitwise: make ``_or_all`` work on single bits. None selects what is faster, in the interpreter or on a GPU.

    Returns:
        ``(B, N)`` bool, True for the boxes to keep.
    """
    num_images, num_words, num_boxes = mask.shape
    keep = torch.empty(num_images, num_boxes, dtype=torch.int32, device=mask.device)
    if keep.numel() > 0:
        padded = max(32, triton.next_power_of_2(num_boxes))
        _forward_kernel[(num_images,)](
            mask,
            valid.to(torch.int32).contiguous(),
            keep,
            num_boxes,
            num_words,
            PADDED=padded,
            BITWISE=triton_interprets() if bitwise is None else bitwise,
            enable_fp_fusion=True,
            num_warps=min(16, max(4, padded // 512)),
        )
    return keep.bool()
