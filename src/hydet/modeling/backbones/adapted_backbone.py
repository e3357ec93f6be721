"""What the adapters of other libraries' networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from .backbone import Backbone

__all__ = ["AdaptedBackbone"]

Self = TypeVar("Self", bound="AdaptedBackbone")


class AdaptedBackbone(Backbone):
    """A backbone around a network called ``model``, which may be frozen.

    Args:
        model: the network.
        frozen: train nothing, and leave it in evaluation mode.
        freeze_norm: leave batch normalisations alone: neither statistics nor affine parameters change.
        size_divisibility: what height and width of the input must be multiples of.
        square_pad: if positive, ask for images padded to this height and width.
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
            part.eval()
            for parameter in part.parameters():
                parameter.requires_grad = False

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"square_size": self._square_pad} if self._square_pad else {}

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen."""
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


def names_of_strides(strides: Sequence[int]) -> list[str]:
    """``res2``, ``res3`` ... after the base-2 logarithm where strides differ, else ``feat0``, ``feat1`` ..."""
    powers = all(stride > 0 and stride & (stride - 1) == 0 for stride in strides)
    if powers and len(set(strides)) == len(strides):
        return [f"res{stride.bit_length() - 1}" for stride in strides]
    return [f"feat{i}" for i in range(len(strides))]
