"""Convolution with normalization and activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .norms import FrozenBatchNorm2d

__all__ = ["Conv2d", "ConvTranspose2d", "Linear"]

ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` followed by ``norm`` and ``activation``.

    Args:
        *args: positional arguments of ``nn.Conv2d``.
        norm: normalization layer, or None. Its state dict keys start with ``norm``.
        activation: function or module, or None.
        **kwargs: keyword arguments of ``nn.Conv2d``.

    Attributes:
        scales_weight: apply a ``FrozenBatchNorm2d`` to the weight instead of the feature map; see
            ``hydet.modeling.optimize_training``.

    Raises:
        TypeError: if ``norm`` is a string; ``get_norm`` turns it into a layer.
    """

    scales_weight = False

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(norm, str):
            raise TypeError(
                f"Conv2d takes a norm layer, got the name {norm!r}; get_norm turns it into a layer"
            )
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H', W')``."""
        if self.scales_weight and isinstance(self.norm, FrozenBatchNorm2d):
            scale, bias = self.norm.scale_and_shift()
            if self.bias is not None:
                bias = bias + self.bias * scale
            x = self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), bias)
        else:
            x = self._conv_forward(x, self.weight, self.bias)
            if self.norm is not None:
                x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x
