"""Check what a model returns in training mode."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hydet.structures import Losses

__all__ = ["check_losses"]


def check_losses(losses: object) -> Losses:
    """Return the losses of a batch as a dict.

    Raises:
        TypeError: if the model returned anything other than scalar tensors by name.
    """
    if not isinstance(losses, Mapping) or not losses:
        actual = "an empty dict" if isinstance(losses, Mapping) else type(losses).__name__
        raise TypeError(f"in training mode the model must return a dict of losses, but it returned {actual}")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            actual = (
                f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            )
            raise TypeError(f"loss {name!r} must be a scalar tensor, but it is {actual}")
    return dict(losses)
