"""The model that each of several processes trains on its share of a batch."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hydet.distributed import synchronize_buffers, world_size

__all__ = ["parallel_model", "without_gradient_synchronization"]


def parallel_model(
    model: nn.Module, *, device: torch.device, find_unused_parameters: bool = False
) -> nn.Module:
    """Return a module whose backward pass averages gradients over processes; a single process gets ``model`` itself.

    All processes start with the weights and buffers of the main process. Later forward passes leave buffers alone:
    the caller synchronizes them at the end of a step, so that evaluations and checkpoints find them equal.

    Args:
        model: the model of this process, on ``device``.
        device: device of this process.
        find_unused_parameters: see ``DistributedDataParallel``.
    """
    if world_size() == 1:
        return model
    parallel = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
        **_no_buffers_in_forward(),
    )
    synchronize_buffers(model)
    return parallel


def _no_buffers_in_forward() -> dict[str, Any]:
    """Return the option that keeps forward passes from sending buffers; newer versions of torch renamed it."""
    options = inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers": False}


def without_gradient_synchronization(model: nn.Module) -> AbstractContextManager[object]:
    """Keep backward passes from averaging gradients over processes, before the last batch of a step."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
