"""Base of the adapters for networks of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from .backbone import Backbone

__all__ = ["AdaptedBackbone", "names_from_strides"]


class AdaptedBackbone(Backbone):
    """Base of backbones that wrap a network of another library, stored as ``model``, and may freeze it.

    Args:
        model: the network.
        frozen: freeze all parameters and keep the network in evaluation mode.
        freeze_norm: freeze statistics and affine parameters of batch norms.
        size_divisibility: height and width of the input must be multiples of this.
        square_pad: if positive, images are padded to this height and width.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        frozen: bool = False,
        freeze_norm: bool = False,
        size_divisibility: int = 0,
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.frozen = frozen
        self.freeze_norm = freeze_norm
        self._size_divisibility = size_divisibility
        self._square_pad = square_pad
        for part in self._frozen_parts():
            part.eval().requires_grad_(False)

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 accepts any size."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Arguments for ``ImageList.from_tensors``: ``square_size``, if set."""
        return {"square_size": self._square_pad} if self._square_pad else {}

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen modules."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen:
            return [self.model]
        if self.freeze_norm:
            return [m for m in self.model.modules() if isinstance(m, _NormBase)]
        return []


def names_from_strides(strides: Sequence[int]) -> list[str]:
    """Name features ``res2``, ``res3``, ... by log2 of their strides, or ``feat0``, ``feat1``, ... if strides repeat."""
    powers = all(stride > 0 and stride & (stride - 1) == 0 for stride in strides)
    if powers and len(set(strides)) == len(strides):
        return [f"res{stride.bit_length() - 1}" for stride in strides]
    return [f"feat{i}" for i in range(len(strides))]
