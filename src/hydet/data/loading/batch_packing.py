"""Packing of a batch into one block of shared memory.

A worker process sends each tensor through a separate block of shared memory, which costs a file descriptor and several
system calls. A batch of detection inputs holds dozens of small tensors, so a worker packs them into one tensor.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["PackedBatch", "SentBatch", "pack_batch", "send_batch", "unpack_batch"]

T = TypeVar("T")

_ALIGNMENT = 64  # bytes; a cache line, and a multiple of the size of every dtype


class _Span(NamedTuple):
    """Position of a tensor in the block, in bytes."""

    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class PackedBatch(Generic[T]):
    """A batch whose tensors share one block of bytes.

    Args:
        structure: pickled batch without the contents of its tensors.
        block: ``(bytes,)`` uint8 contents of all tensors.
        spans: position of each tensor in ``block``, in the order of ``structure``.
    """

    structure: bytes
    block: Tensor
    spans: list[_Span]

    def pin_memory(self) -> PackedBatch[T]:
        """Copy the block to page-locked memory. ``DataLoader`` calls this method by name."""
        return dataclasses.replace(self, block=self.block.pin_memory())


@dataclasses.dataclass(frozen=True)
class SentBatch(Generic[T]):
    """A packed batch in shared memory, as a worker process sends it.

    Args:
        content: pickled ``PackedBatch`` that refers to the block in shared memory.
    """

    content: bytes

    def receive(self) -> PackedBatch[T]:
        """Open the block in this process; once, while the worker is alive."""
        packed: PackedBatch[T] = ForkingPickler.loads(self.content)
        return packed

    def pin_memory(self) -> PackedBatch[T]:
        """Receive the batch and copy it to page-locked memory. ``DataLoader`` calls this method by name."""
        return self.receive().pin_memory()


def send_batch(packed: PackedBatch[T]) -> SentBatch[T]:
    """Move a packed batch to shared memory and prepare it for another process.

    The queue of ``DataLoader`` would do this in a thread of its own that swallows errors: with a full ``/dev/shm``, the
    other process would wait without end. Here an error reaches the caller.

    Raises:
        RuntimeError: if shared memory is full; torch's error.
        OSError: if the process has no free file descriptors.
    """
    packed.block.share_memory_()
    return SentBatch(bytes(ForkingPickler.dumps(packed)))


def pack_batch(batch: T) -> PackedBatch[T]:
    """Copy all CPU tensors of a batch into one block.

    Args:
        batch: any object that can be pickled.

    Returns:
        The packed batch. Its tensors carry no gradients.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _BatchPickler(stream, protocol=5, buffer_callback=buffers.append).dump(batch)
    views = [buffer.raw() for buffer in buffers]
    spans, end = [], 0
    for view in views:
        spans.append(_Span(end, view.nbytes))
        end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT  # rounded up
    block = torch.empty(end, dtype=torch.uint8)
    target = _bytes_of(block)
    for (start, length), view in zip(spans, views):
        target[start : start + length] = view
    return PackedBatch(stream.getvalue(), block, spans)


def unpack_batch(packed: PackedBatch[T]) -> T:
    """Restore a batch; its tensors are views of the block."""
    content = _bytes_of(packed.block)
    buffers = [content[start : start + length] for start, length in packed.spans]
    batch: T = pickle.loads(packed.structure, buffers=buffers)
    return batch


class _BatchPickler(pickle.Pickler):
    """Pickler that passes the contents of CPU tensors out of band."""

    def reducer_override(self, value: object) -> Any:
        if type(value) is Tensor and value.device.type == "cpu" and value.layout == torch.strided:
            if value.numel() == 0:  # a buffer cannot be empty
                return _restore_empty, (value.dtype, tuple(value.shape))
            buffer = pickle.PickleBuffer(_bytes_of(value.detach().contiguous()))
            return _restore, (buffer, value.dtype, tuple(value.shape))
        return NotImplemented


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as bytes."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _restore(buffer: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def _restore_empty(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=dtype)
