"""Weight initialization under its Caffe2 names."""

from __future__ import annotations

from torch import nn

__all__ = ["c2_msra_fill", "c2_xavier_fill"]


def c2_msra_fill(module: nn.Module) -> None:
    """Fill weights from a normal distribution of variance 2 / fan_out and biases with 0.

    Source: He et al. 2015 (arXiv:1502.01852).
    """
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    _zero_bias(module)


def c2_xavier_fill(module: nn.Module) -> None:
    """Fill weights from a uniform distribution of variance 1 / fan_in and biases with 0.

    Source: Glorot & Bengio 2010, section 4.2.1, in the variant of Caffe2, which ignores fan_out.
    """
    nn.init.kaiming_uniform_(module.weight, a=1)  # type: ignore[arg-type]
    _zero_bias(module)


def _zero_bias(module: nn.Module) -> None:
    if module.bias is not None:
        nn.init.constant_(module.bias, 0)  # type: ignore[arg-type]
