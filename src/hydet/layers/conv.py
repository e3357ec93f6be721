"""Convolution with normalization and activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

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
            scale = scale.view(-1, 1, 1, 1)
            with _recompute_in_backward(weight := self.weight * scale, self.weight, scale):
                x = self._conv_forward(x, weight, bias)
        else:
            x = self._conv_forward(x, self.weight, self.bias)
            if self.norm is not None:
                x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def _recompute_in_backward(product: Tensor, weight: Tensor, scale: Tensor) -> saved_tensors_hooks:
    """Save no copy of ``product = weight * scale`` for the backward pass, which computes it again.

    The copies of all layers would take as much memory as the weights.
    """
    address, shape = product.data_ptr(), product.shape

    def pack(saved: Tensor) -> Tensor | None:
        return None if saved.data_ptr() == address and saved.shape == shape else saved

    def unpack(packed: Tensor | None) -> Tensor:
        return weight.detach() * scale if packed is None else packed

    return saved_tensors_hooks(pack, unpack)
