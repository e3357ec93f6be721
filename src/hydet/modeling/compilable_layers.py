"""Heads whose forward pass takes ground truth, so that only their layers can be compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["CompilableLayers"]


class CompilableLayers(nn.Module):
    """Base of heads with a method ``layers`` that maps tensors to tensors, while ``forward`` takes ground truth."""

    def compile_layers(self, **options: Any) -> None:
        """Compile ``layers``, in place.

        State dicts, copies and pickles of the head stay as they are, as with ``nn.Module.compile``.

        Args:
            **options: see ``torch.compile``.
        """
        layers = getattr(type(self), "layers")  # noqa: B009  # subclasses define it
        self.__dict__["layers"] = torch.compile(layers.__get__(self), **options)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("layers", None)  # a copy would compute with the weights of this head
        return state
