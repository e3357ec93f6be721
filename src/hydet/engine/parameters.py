"""Parameter groups: which parameter decays how much, and learns how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

__all__ = ["ViTLayerDecay", "build_optimizer", "parameter_groups"]

SETTINGS = ("weight_decay", "lr_factor")


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float | None = None,
    norm_weight_decay: float | None = 0.0,
    bias_weight_decay: float | None = None,
    bias_lr_factor: float = 1.0,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
    layer_lr_factor: Callable[[str], float] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of ``model``, grouped by weight decay and learning-rate factor.

    Args:
        model: parameters that need no gradient are left out; one used twice counts once.
        weight_decay: of everything without a rule of its own; ``None`` leaves it to the optimizer.
        norm_weight_decay: of weights and biases of normalisation layers; ``None`` for no exception.
        bias_weight_decay: of the other biases; ``None`` for no exception.
        bias_lr_factor: multiplies the learning rate of biases outside normalisation layers.
        overrides: pattern -> ``{"weight_decay": ..., "lr_factor": ...}``. A pattern with ``*`` or a dot is matched
            against the parameter's full name, any other against its last part (``pos_embed``). The last that
            matches wins.
        layer_lr_factor: full name -> learning-rate factor, multiplied with the others; see ``ViTLayerDecay``.

    Returns:
        Groups for ``torch.optim``, in the order in which their first parameter stands in the model, each with
        ``lr_factor``, which ``build_optimizer`` turns into a learning rate.

    Raises:
        ValueError: if nothing is trainable, a pattern matches nothing, or an override has an unknown setting.
    """
    overrides = dict(overrides or {})
    for pattern, settings in overrides.items():
        wrong = set(settings) - set(SETTINGS)
        if wrong:
            raise ValueError(
                f"override {pattern!r}: unknown setting {sorted(wrong)}, expected {list(SETTINGS)}"
            )
    unmatched = set(overrides)
    groups: dict[tuple[float | None, float], dict[str, Any]] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for last, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{last}" if prefix else last
            matching = [pattern for pattern in overrides if _matches(pattern, name)]
            unmatched -= set(matching)
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            decay, lr_factor = weight_decay, 1.0
            if _is_norm(module):
                decay = weight_decay if norm_weight_decay is None else norm_weight_decay
            elif last == "bias":
                decay = weight_decay if bias_weight_decay is None else bias_weight_decay
                lr_factor = bias_lr_factor
            for pattern in matching:
                decay = overrides[pattern].get("weight_decay", decay)
                lr_factor = overrides[pattern].get("lr_factor", lr_factor)
            if layer_lr_factor is not None:
                lr_factor *= layer_lr_factor(name)
            group = groups.setdefault((decay, lr_factor), {"params": [], "lr_factor": lr_factor})
            if decay is not None:
                group["weight_decay"] = decay
            group["params"].append(parameter)
    if unmatched:
        raise ValueError(f"overrides {sorted(unmatched)} match no parameter of the model")
    if not groups:
        raise ValueError("the model has no trainable parameter")
    return list(groups.values())


def build_optimizer(factory: Callable[[Any], Optimizer], groups: Iterable[dict[str, Any]]) -> Optimizer:
    """An optimizer over ``groups`` in which each group learns at the factory's rate times its ``lr_factor``.

    Args:
        factory: such as ``functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9)``.
        groups: from ``parameter_groups``.
    """
    optimizer = factory([dict(group) for group in groups])
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer factory returned {type(optimizer).__name__}, expected a torch Optimizer")
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group.get("lr_factor", 1.0)
    return optimizer


class ViTLayerDecay:
    """Learning-rate factors that shrink from the head down through a plain vision transformer.

    Args:
        decay: factor from one block to the one below it.
        num_layers: blocks of the transformer.
        backbone: prefix of the transformer's parameters; everything else has factor 1.

    Source: Bao et al. 2022 (arXiv:2106.08254), as used for detection by Li et al. 2022 (arXiv:2203.16527).
    """

    def __init__(self, *, decay: float = 0.7, num_layers: int = 12, backbone: str = "backbone.") -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"decay must lie in (0, 1], got {decay}")
        self.decay = decay
        self.num_layers = num_layers
        self.backbone = backbone

    def __call__(self, name: str) -> float:
        """The factor of the parameter called ``name``."""
        depth = self.num_layers + 1
        if name.startswith(self.backbone):
            if ".pos_embed" in name or ".patch_embed" in name:
                depth = 0
            elif ".blocks." in name and ".residual." not in name:
                depth = int(name.split(".blocks.")[1].split(".")[0]) + 1
        return self.decay ** (self.num_layers + 1 - depth)


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name if "*" in pattern or "." in pattern else name.rpartition(".")[2], pattern)


def _is_norm(module: nn.Module) -> bool:
    known = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm | nn.LocalResponseNorm | nn.RMSNorm
    return isinstance(module, known) or "Norm" in type(module).__name__
