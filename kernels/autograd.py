"""Type of the context that ``torch.library`` passes to the autograd functions of an op."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["AutogradContext"]


class AutogradContext(Protocol):
    """Context between forward and backward; ops add the attributes that they store on it."""

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """Return what ``save_for_backward`` stored. An entry that was None stays None."""
        ...

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """Return True for each input of the op that needs a gradient."""
        ...

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Store tensors for the backward pass."""
        ...
