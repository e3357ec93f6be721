"""Weights of other libraries, in the names of hydet's modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

__all__ = ["ForeignModel", "ForeignWeights"]


@dataclass(frozen=True)
class ForeignModel:
    """The model that weights were trained in.

    Attributes:
        overrides: Hydra overrides of ``hydet.compose(config_name="train")`` that build a model with equal results.
        class_names: names of its classes, in the order of the converted predictors; empty if unknown.
    """

    overrides: tuple[str, ...]
    class_names: tuple[str, ...] = ()

    @property
    def is_backbone(self) -> bool:
        """True if the overrides describe a backbone, which any model can have."""
        return not any(o.lstrip("+").startswith(("model=", "experiment=")) for o in self.overrides)


@dataclass(frozen=True)
class ForeignWeights:
    """Content of a weight file.

    Attributes:
        path: the file.
        format: a word for messages: "detectron2", "caffe2", "torchvision", "timm", "mmdet", "pycls" or "state dict".
        tensors: the weights by their names in hydet.
        renamed: for each tensor of another name in the file, or computed from one: its name in hydet -> the name in the
            file.
        skipped: for each value of the state dict that is not in ``tensors``: its name in the file -> the reason.
        by_suffix: the names in ``tensors`` are ends of the names in the model, whose parts may be nested anywhere.
        model: the model that the weights belong to, or None if the file does not say it.
        unconverted: the tensors by their names in the file, for models that keep these names, such as those on a
            ``TimmBackbone``; None if there are no such models.
    """

    path: Path
    format: str
    tensors: Mapping[str, Tensor]
    renamed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    by_suffix: bool = False
    model: ForeignModel | None = None
    unconverted: Mapping[str, Tensor] | None = None
