"""3 x 3 convolutions that compute a quarter of the products."""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.kernels import transform_winograd_weight, winograd_conv2d, winograd_conv2d_transformed

from .conv import Conv2d

__all__ = ["WinogradConv2d"]

# With fewer channels, the transforms cost more than the products that they save. In training, torch's gradient of the
# weight is so slow for large feature maps in channels-last order that half of them suffice there.
_MIN_CHANNELS = 128
_MIN_CHANNELS_IN_TRAINING = 64
_MIN_CHANNELS_IN_BFLOAT16 = 256  # the transforms, in float32, are not faster than for float32
_MIN_TILES = 16  # in tiny feature maps, reading the four times larger weight takes longer
_MIN_TILES_IN_BFLOAT16 = 80
# In training, each step also transforms the weight and its gradient.
_MIN_TILES_IN_TRAINING = 64
_MIN_TILES_OF_FEW_CHANNELS = 2500


class WinogradConv2d(Conv2d):
    """A ``Conv2d`` that uses :func:`hydet.kernels.winograd_conv2d` where that is faster.

    This is so for float32 on a CPU, outside of autocast, unless the feature map is tiny, and for bfloat16 after
    :meth:`prepare_inference`. Use :meth:`convert`.

    Attributes:
        transformed_weight: ``(36, C, K)``, once :meth:`prepare_inference` was called. Its precision is that of the products.
    """

    transformed_weight: Tensor | None

    @staticmethod
    def fits(conv: nn.Module, *, training: bool, bfloat16: bool = False) -> TypeGuard[nn.Conv2d]:
        """Return True for a plain 3 x 3 convolution of stride 1 on a CPU with enough channels to gain from Winograd's algorithm.

        Args:
            conv: any module.
            training: judge forward and backward pass, instead of the forward pass alone.
            bfloat16: judge the forward pass in bfloat16, instead of that in float32.
        """
        if type(conv) not in (nn.Conv2d, Conv2d):
            return False
        assert isinstance(conv, nn.Conv2d)
        min_channels = _MIN_CHANNELS_IN_TRAINING if training else _MIN_CHANNELS
        if bfloat16:
            min_channels = _MIN_CHANNELS_IN_BFLOAT16
        return (
            conv.weight.device.type == "cpu"
            and conv.kernel_size == (3, 3)
            and conv.padding == (1, 1)
            and conv.stride == conv.dilation == (1, 1)
            and conv.groups == 1
            and conv.padding_mode == "zeros"
            and min(conv.in_channels, conv.out_channels) >= min_channels
        )

    @staticmethod
    def convert(conv: nn.Conv2d) -> WinogradConv2d:
        """Turn a convolution that :meth:`fits` into a ``WinogradConv2d``, in place: references and hooks stay valid."""
        norm, activation = getattr(conv, "norm", None), getattr(conv, "activation", None)
        conv.__class__ = WinogradConv2d
        assert isinstance(conv, WinogradConv2d)
        conv.norm, conv.activation = norm, activation
        conv.register_buffer("transformed_weight", None, persistent=False)
        return conv

    def prepare_inference(self) -> None:
        """Transform the weight once, for passes without gradients. The weight must not change after this."""
        self.transformed_weight = transform_winograd_weight(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H, W)``."""
        if self.transformed_weight is None or torch.is_grad_enabled():
            return super().forward(x)
        dtype = self.transformed_weight.dtype
        min_tiles = _MIN_TILES_IN_BFLOAT16 if dtype == torch.bfloat16 else _MIN_TILES
        if not _is_worthwhile(x, min_tiles, (torch.float32, torch.bfloat16)) or x.dtype != dtype:
            return super().forward(x)
        applies_relu = self.norm is None and (
            self.activation is F.relu or isinstance(self.activation, nn.ReLU)
        )
        x = winograd_conv2d_transformed(x, self.transformed_weight, self.bias, relu=applies_relu)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None and not applies_relu:
            x = self.activation(x)
        return x

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        has_many_channels = min(weight.shape[:2]) >= _MIN_CHANNELS
        min_tiles = _MIN_TILES_IN_TRAINING if has_many_channels else _MIN_TILES_OF_FEW_CHANNELS
        if _is_worthwhile(input, min_tiles, (torch.float32,)):
            return winograd_conv2d(input, weight, bias)
        result: Tensor = super()._conv_forward(input, weight, bias)
        return result


def _is_worthwhile(x: Tensor, min_tiles: int, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Return True if Winograd's algorithm is faster for this input, which takes at least ``min_tiles`` tiles."""
    if x.device.type != "cpu" or x.dtype not in dtypes or torch.is_autocast_enabled("cpu"):
        return False
    return x.shape[0] * -(-x.shape[2] // 4) * -(-x.shape[3] // 4) >= min_tiles
