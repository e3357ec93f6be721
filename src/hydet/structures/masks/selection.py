"""Indexing, joining and pairing with boxes, shared by the mask containers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hydet.structures.boxes import Boxes, box_tensor

__all__ = ["Index", "check_cat", "match_boxes", "select_masks"]

# An int selects one object; a slice, a bool mask or integer indices select several.
Index = int | slice | Tensor


def match_boxes(boxes: Boxes | Tensor, count: int, owner: str) -> Tensor:
    """Return the tensor of ``boxes`` after checking their number.

    Args:
        boxes: boxes to pair with masks.
        count: number of masks.
        owner: name of the caller, for the message.

    Raises:
        ValueError: unless there is one box per mask.
    """
    corners = box_tensor(boxes)
    if corners.shape[0] != count:
        raise ValueError(f"{owner}: {count} masks need as many boxes, got {corners.shape[0]}")
    return corners


def select_masks(tensor: Tensor, index: Index, owner: str) -> Tensor:
    """Index an ``(N, H, W)`` tensor; the result always has three dimensions.

    Args:
        tensor: ``(N, H, W)``.
        index: an int, a slice, a bool mask or integer indices.
        owner: name of the container, for the message.

    Raises:
        ValueError: if ``index`` adds or removes dimensions.
    """
    selected = tensor[index]
    if selected.ndim == 2:  # an int, or a tensor without dimensions
        selected = selected.unsqueeze(0)
    if selected.ndim != 3:
        raise ValueError(f"indexing {owner} with {index!r} gives a tensor of {selected.ndim} dimensions")
    return selected


def check_cat(masks_list: Sequence[object], cls: type) -> None:
    """Check the argument of a container's ``cat``.

    Raises:
        ValueError: if the list is empty.
        TypeError: if an element is not a ``cls``.
    """
    if len(masks_list) == 0:
        raise ValueError(f"{cls.__name__}.cat takes at least one {cls.__name__}, got none")
    for masks in masks_list:
        if not isinstance(masks, cls):
            raise TypeError(
                f"{cls.__name__}.cat takes {cls.__name__}, got a {type(masks).__name__} among them"
            )
