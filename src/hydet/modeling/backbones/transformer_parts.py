"""Modules and functions shared by vision transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Mlp",
    "PatchEmbed",
    "as_pair",
    "attend",
    "init_transformer",
    "linear_rates",
    "to_channels_first",
]


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        in_features: channels of input and output.
        hidden_features: channels of the hidden layer.
        act_layer: makes an activation; called without arguments.
        drop: dropout probability after each layer.
    """

    def __init__(
        self,
        *,
        in_features: int,
        hidden_features: int,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to the same shape."""
        output: Tensor = self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        return output


class PatchEmbed(nn.Module):
    """Patch embedding: a convolution from images to a grid of tokens.

    Args:
        kernel_size: height and width of a patch.
        stride: vertical and horizontal stride of the patches.
        padding: vertical and horizontal padding of the image.
        in_chans: channels of the image.
        embed_dim: channels of a token.
    """

    def __init__(
        self,
        *,
        kernel_size: Sequence[int] = (16, 16),
        stride: Sequence[int] = (16, 16),
        padding: Sequence[int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, as_pair(kernel_size), as_pair(stride), as_pair(padding))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_chans, H, W)`` to ``(B, H / stride, W / stride, embed_dim)``."""
        tokens: Tensor = self.proj(x)
        return tokens.permute(0, 2, 3, 1)


def as_pair(values: Sequence[int]) -> tuple[int, int]:
    """Return ``values`` as ``(height, width)``.

    Raises:
        ValueError: if there are not two values.
    """
    height, width = values
    return height, width


def linear_rates(last: float, count: int) -> list[float]:
    """Return ``count`` drop rates that grow linearly from 0 to ``last``."""
    return [last * i / max(count - 1, 1) for i in range(count)]


def init_transformer(module: nn.Module) -> None:
    """Initialize a linear layer: weights from a truncated normal distribution with std 0.02, biases with 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def to_channels_first(x: Tensor) -> Tensor:
    """Map ``(B, H, W, C)`` to a ``(B, C, H, W)`` view, in ``channels_last`` memory format."""
    return x.permute(0, 3, 1, 2)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Compute attention with an additive bias on the logits.

    Args:
        q: ``(..., Q, D)``.
        k: ``(..., K, D)``.
        v: ``(..., K, D)``.
        scale: factor of the inner products.
        bias: ``(..., Q, K)``.
        dropout: probability of dropping an attention weight.

    Returns:
        ``(..., Q, D)``.
    """
    if bias is not None:
        bias = bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
