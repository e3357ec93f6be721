"""How wide the features of a ResNet are, for parts that are configured beside it."""

from __future__ import annotations

__all__ = ["resnet_channels"]

STAGES = ("res2", "res3", "res4", "res5")


def resnet_channels(*, res2_out_channels: int, feature: str) -> int:
    """Channels of a stage: those of ``res2``, doubled with every stage.

    Args:
        res2_out_channels: as in ``make_resnet``.
        feature: ``res2`` ... ``res5``.

    Raises:
        ValueError: for another feature.
    """
    if feature not in STAGES:
        raise ValueError(f"feature must be one of {', '.join(STAGES)}, got {feature!r}")
    return res2_out_channels * 2 ** STAGES.index(feature)
