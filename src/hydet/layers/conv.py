"""Convolutions that carry their normalisation and activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["Conv2d", "ConvTranspose2d", "Linear"]

ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, then ``norm``, then ``activation``.

    Args:
        norm: a normalisation layer, or ``None``.
        activation: a function or module, or ``None``.

    All other arguments are those of ``nn.Conv2d``. The layer is called ``norm`` in the state dict.

    Raises:
        TypeError: if ``norm`` is a name; ``get_norm`` makes a layer of it.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(norm, str):
            raise TypeError(f"Conv2d takes a norm layer, got the name {norm!r}; get_norm makes a layer of it")
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self._conv_forward(x, self.weight, self.bias)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x
