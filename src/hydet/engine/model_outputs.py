"""Move the results of a model to the CPU."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from hydet.structures import Instances, ModelOutput, SemanticScores

__all__ = ["move_to_cpu"]


def move_to_cpu(output: ModelOutput) -> ModelOutput:
    """Move the tensors and instances in the result of one image to the CPU; other values stay as they are."""
    cpu = torch.device("cpu")
    moved: dict[str, object] = {}
    for name, value in output.items():
        if isinstance(value, Tensor | Instances | SemanticScores):
            moved[name] = value.to(cpu)
        elif name == "panoptic_seg" and isinstance(value, tuple):
            segmentation, segments = value
            moved[name] = (segmentation.to(cpu), segments)
        else:
            moved[name] = value
    return cast("ModelOutput", moved)
