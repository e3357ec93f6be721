"""Batches between processes: one block of shared memory each, instead of one for every tensor in it."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

__all__ = ["PackedBatch", "pack", "unpack"]

_ALIGNMENT = 64
PackedBatch = tuple[bytes, Tensor, list[tuple[int, int]]]


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.device.type == "cpu" and value.layout == torch.strided:
            if value.numel() == 0:
                return _empty, (value.dtype, tuple(value.shape))
            content = value.detach().contiguous()
            buffer = pickle.PickleBuffer(_bytes(content))
            return _restored, (buffer, value.dtype, tuple(value.shape))
        return NotImplemented


def _bytes(tensor: Tensor) -> Any:
    """The memory of a contiguous tensor, as Python's buffers."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _restored(buffer: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def _empty(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def pack(batch: Any) -> PackedBatch:
    """Put all tensors of a batch into one block of bytes. The tensors come back without their gradients."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(batch)
    views = [buffer.raw() for buffer in buffers]
    places, end = [], 0
    for view in views:
        places.append((end, view.nbytes))
        end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = torch.empty(end, dtype=torch.uint8)
    target = memoryview(_bytes(block))
    for (start, length), view in zip(places, views):
        target[start : start + length] = view
    return stream.getvalue(), block, places


def unpack(packed: PackedBatch) -> Any:
    """The batch again; its tensors are views of the block."""
    stream, block, places = packed
    content = memoryview(_bytes(block))
    return pickle.loads(stream, buffers=[content[start : start + length] for start, length in places])
