"""Weight initialisation under the names that detection papers use."""

from __future__ import annotations

from torch import nn

__all__ = ["c2_msra_fill", "c2_xavier_fill"]


def c2_msra_fill(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan_out, zero bias (He et al. 2015, arXiv:1502.01852)."""
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    _zero_bias(module)


def c2_xavier_fill(module: nn.Module) -> None:
    """Uniform weights of variance 1 / fan_in, zero bias (Caffe2's reading of Glorot & Bengio 2010)."""
    nn.init.kaiming_uniform_(module.weight, a=1)  # type: ignore[arg-type]
    _zero_bias(module)


def _zero_bias(module: nn.Module) -> None:
    if module.bias is not None:
        nn.init.constant_(module.bias, 0)  # type: ignore[arg-type]
