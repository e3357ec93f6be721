"""Names of version 0.1 that configs of users still contain as ``_target_``."""

from __future__ import annotations

import warnings
from typing import Any

from .prediction_images import PredictionImages
from .training_images import TrainingImages

__all__ = ["ModelPictures", "PredictionPictures"]


def PredictionPictures(**options: Any) -> PredictionImages:
    """Return ``PredictionImages``, the name since version 0.2; ``pictures`` is its ``num_images``."""
    _warn("PredictionPictures(pictures=...)", "PredictionImages(num_images=...)")
    renamed = {"num_images" if name == "pictures" else name: value for name, value in options.items()}
    return PredictionImages(**renamed)


def ModelPictures(*, folder: str | None = "pictures/training") -> TrainingImages:
    """Return ``TrainingImages``, the name since version 0.2."""
    _warn("ModelPictures", "TrainingImages")
    return TrainingImages(folder=folder)


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"hydet.engine.callbacks.{old} was renamed to {new} in version 0.2",
        DeprecationWarning,
        stacklevel=3,
    )
