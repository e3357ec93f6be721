"""Buffers of a module that all processes train together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .process_group import world_size

__all__ = ["synchronize_buffers"]


@torch.no_grad()
def synchronize_buffers(module: nn.Module) -> None:
    """Give all processes the same buffers, in place; every process must call this function.

    Each process updates the running statistics of batch normalization from its own images: they become the mean over
    processes. All other buffers become those of the main process, as in ``DistributedDataParallel``.
    """
    if world_size() == 1:
        return
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    statistics = {id(b) for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None}
    buffers = [buffer for buffer in module.buffers() if buffer.numel()]
    _exchange([b for b in buffers if id(b) in statistics], _mean)
    _exchange([b for b in buffers if id(b) not in statistics], _value_of_main)


def _exchange(buffers: Sequence[Tensor], combine: Callable[[Tensor], Tensor]) -> None:
    """Combine buffers over processes, in one message per device and data type."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for buffer in buffers:
        groups[buffer.device, buffer.dtype].append(buffer)
    for group in groups.values():
        flat = combine(torch.cat([buffer.flatten() for buffer in group]))
        parts = flat.split([buffer.numel() for buffer in group])
        torch._foreach_copy_(group, [part.view_as(b) for part, b in zip(parts, group, strict=True)])


def _mean(flat: Tensor) -> Tensor:
    dist.all_reduce(flat)
    return flat / world_size()


def _value_of_main(flat: Tensor) -> Tensor:
    dist.broadcast(flat, src=0)
    return flat
