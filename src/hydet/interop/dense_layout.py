"""Heads of dense detectors: the order of their anchors, and their convolutions in hydet's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

__all__: list[str] = []


def sizes_before_ratios(tensor: Tensor, num_ratios: int) -> Tensor:
    """Reorder the outputs of a dense head from anchors ordered by (ratio, size) to anchors ordered by (size, ratio).

    Args:
        tensor: ``(num_ratios * num_sizes, V, ...)``, V outputs per anchor.
        num_ratios: aspect ratios per size.
    """
    split: Tensor = tensor.unflatten(0, (num_ratios, -1))
    return split.transpose(0, 1).flatten(0, 1)


def subnet_widths(ours: Mapping[str, Tensor]) -> list[int]:
    """Return the output channels of the convolutions of the class branch."""
    return [weight.shape[0] for _, weight in _convs(ours, "cls_subnet")]


def add_zero_biases(ours: dict[str, Tensor]) -> None:
    """Add the biases that convolutions before a norm have in hydet's heads."""
    for subnet in ("cls_subnet", "bbox_subnet"):
        for name, weight in list(_convs(ours, subnet)):
            ours.setdefault(f"{name}.bias", weight.new_zeros(weight.shape[0]))


def _convs(ours: Mapping[str, Tensor], subnet: str) -> Iterator[tuple[str, Tensor]]:
    step = 3 if f"head.{subnet}.1.weight" in ours else 2  # convolution, norm if any, and ReLU
    i = 0
    while f"head.{subnet}.{i}.weight" in ours:
        yield f"head.{subnet}.{i}", ours[f"head.{subnet}.{i}.weight"]
        i += step
