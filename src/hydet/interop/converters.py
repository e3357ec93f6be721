"""Converters from the names of other libraries to those of hydet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from . import caffe2, classification, mmdet_weights, torchvision_detection
from .foreign import ForeignWeights

__all__ = ["CONVERTERS", "Converter"]


class Converter(Protocol):
    """A module that converts the weights of one library."""

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return True if the names are those of the library."""
        ...

    def convert(
        self, path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]
    ) -> ForeignWeights:
        """Convert weights.

        Args:
            path: the file, for messages.
            tensors: content of the state dict.
            meta: the other values in the file, by key.
        """
        ...


# The first converter that fits is used; weights that none fits keep their names.
CONVERTERS: tuple[Converter, ...] = (caffe2, torchvision_detection, mmdet_weights, classification)
