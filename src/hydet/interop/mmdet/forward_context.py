"""Context managers around a forward pass of an mmdet detector; both restore the detector afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["cache_features", "use_forward_mode"]

# Modules with this attribute belong to TridentNet. Even their convolutions depend on the mode.
MODE_DEPENDENT_BRANCH = "test_branch_idx"


@contextmanager
def use_forward_mode(detector: nn.Module, *, training: bool) -> Iterator[None]:
    """Let a detector compute losses in evaluation mode, or results in training mode.

    Heads of mmdet decide by ``self.training`` what to compute, so every module that consists of other modules gets
    that mode temporarily. Layers, including normalization and dropout, keep their own mode.

    Args:
        detector: a built mmdet detector.
        training: True to compute losses, False to compute results.
    """
    modes = [(module, module.training) for module in detector.modules()]
    try:
        for module, _ in modes:
            has_children = next(module.children(), None) is not None
            is_from_torch = type(module).__module__.startswith("torch.nn.")
            if (has_children and not is_from_torch) or hasattr(module, MODE_DEPENDENT_BRANCH):
                module.training = training
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _CachedFeatures(NamedTuple):
    images: Tensor
    training: bool
    features: object  # nested tuples or lists of feature maps; the structure depends on the neck


@contextmanager
def cache_features(detector: nn.Module) -> Iterator[None]:
    """Compute the features of a batch once, and run the heads in float32.

    Inside the context, ``detector.extract_feat`` returns the cached features if it gets the same images again. Under
    autocast only ``extract_feat`` runs in half precision, and its result is cast to float32: mmdet's heads compute
    anchors and regions in the dtype of the features, and half precision cannot resolve neighboring pixels of a large
    image.

    Args:
        detector: a built mmdet detector; nothing is cached if it has no ``extract_feat``.
    """
    extract = getattr(detector, "extract_feat", None)
    if extract is None:
        yield
        return
    device = next((p.device.type for p in detector.parameters()), "cpu")
    autocast_enabled, autocast_dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    depends_on_mode = any(hasattr(module, MODE_DEPENDENT_BRANCH) for module in detector.modules())
    cache: list[_CachedFeatures] = []

    def extract_once(batch_inputs: Tensor, *args: object, **kwargs: object) -> object:
        mode = depends_on_mode and detector.training
        cacheable = not (args or kwargs)
        if cacheable and cache and cache[0].images is batch_inputs and cache[0].training == mode:
            return cache[0].features
        with torch.autocast(device, enabled=autocast_enabled, dtype=autocast_dtype):
            features = extract(batch_inputs, *args, **kwargs)
        features = pytree.tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, features)
        if cacheable:
            cache[:] = [_CachedFeatures(batch_inputs, mode, features)]
        return features

    # A detector may have replaced the method on the instance.
    replaced = vars(detector).get("extract_feat")
    object.__setattr__(detector, "extract_feat", extract_once)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        object.__delattr__(detector, "extract_feat")
        if replaced is not None:
            object.__setattr__(detector, "extract_feat", replaced)
