"""One forward pass through an mmdet detector: in the right mode, its features kept, everything restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["shared_features", "taking_the_path_of"]

BRANCH = "test_branch_idx"  # what has it is a TridentNet's, whose very convolutions depend on the mode


@contextmanager
def taking_the_path_of(detector: nn.Module, *, training: bool) -> Iterator[None]:
    """Let a detector compute losses in evaluation mode and results in training mode.

    Heads of mmdet ask ``self.training`` what is wanted of them, so every part made of parts gets that mode for a
    while. Layers, normalisations and dropouts among them, keep the mode that they have.
    """
    before = [(module, module.training) for module in detector.modules()]
    try:
        for module, _ in before:
            made_of_parts = next(module.children(), None) is not None
            of_torch = type(module).__module__.startswith("torch.nn.")
            if (made_of_parts and not of_torch) or hasattr(module, BRANCH):
                module.training = training
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def shared_features(detector: Any) -> Iterator[None]:
    """Within, ``detector.extract_feat`` computes the features of a batch once, and heads run in float32.

    Under autocast only ``extract_feat`` stays in half precision, and its result becomes float32: mmdet's heads make
    anchors and cast regions in the type of the features, and half precision cannot tell neighbouring pixels of a
    large image apart.
    """
    extract = getattr(detector, "extract_feat", None)
    if extract is None:
        yield
        return
    device = next((p.device.type for p in detector.parameters()), "cpu")
    outside = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
    by_mode = any(hasattr(module, BRANCH) for module in detector.modules())
    kept: list[tuple[Tensor, bool, Any]] = []

    def extract_once(batch_inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        mode = by_mode and detector.training
        if kept and not (args or kwargs) and kept[0][0] is batch_inputs and kept[0][1] == mode:
            return kept[0][2]
        with torch.autocast(device, **outside):
            features = extract(batch_inputs, *args, **kwargs)
        features = pytree.tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, features)
        if not (args or kwargs):
            kept[:] = [(batch_inputs, mode, features)]
        return features

    own = vars(detector).get("extract_feat")
    object.__setattr__(detector, "extract_feat", extract_once)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        object.__delattr__(detector, "extract_feat")
        if own is not None:
            object.__setattr__(detector, "extract_feat", own)
