"""Parameter groups: the weight decay and learning rate of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NotRequired, TypedDict

from torch import nn
from torch.optim import Optimizer

__all__ = ["ParameterGroup", "ViTLayerDecay", "build_optimizer", "parameter_groups"]

SETTINGS = ("weight_decay", "lr_factor")


class ParameterGroup(TypedDict):
    """Parameters with the same settings, as ``torch.optim`` optimizers take them.

    Keys:
        params: the parameters.
        lr_factor: factor of the optimizer's learning rate.
        weight_decay: weight decay; that of the optimizer by default.
    """

    params: list[nn.Parameter]
    lr_factor: float
    weight_decay: NotRequired[float]


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float | None = None,
    norm_weight_decay: float | None = 0.0,
    bias_weight_decay: float | None = None,
    bias_lr_factor: float = 1.0,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
    layer_lr_factor: Callable[[str], float] | None = None,
) -> list[ParameterGroup]:
    """Group the trainable parameters of ``model`` by weight decay and learning-rate factor.

    Args:
        model: model whose parameters to group. Parameters without gradient are left out, and shared parameters appear
            once.
        weight_decay: weight decay of parameters without a more specific rule; None leaves it to the optimizer.
        norm_weight_decay: weight decay of the weights and biases of normalization layers; None treats them like other
            parameters. These are the layers of torch and their subclasses. ``hydet.layers.LayerNorm`` (channels first)
            and ``CycleBatchNormList`` do not count, as in the published recipes.
        bias_weight_decay: weight decay of all biases, also of normalization layers; None changes nothing.
        bias_lr_factor: factor of the learning rate of all biases.
        overrides: pattern -> ``{"weight_decay": ..., "lr_factor": ...}``. A pattern with ``*`` or a dot is matched
            against the parameter's full name, any other pattern against the last part of its name (``pos_embed``).
            The last matching pattern wins.
        layer_lr_factor: function from a full name to a learning-rate factor, which multiplies the others; see
            ``ViTLayerDecay``.

    Returns:
        Groups in the order in which their first parameter appears in the model, each with ``lr_factor``, which
        ``build_optimizer`` turns into a learning rate.

    Raises:
        ValueError: if no parameter is trainable, a pattern matches nothing, or an override has an unknown setting.
    """
    overrides = dict(overrides or {})
    _check_overrides(overrides)
    unmatched = set(overrides)
    groups: dict[tuple[float | None, float], ParameterGroup] = {}
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
            if last == "bias":
                decay = decay if bias_weight_decay is None else bias_weight_decay
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


def build_optimizer(factory: Callable[[Any], Optimizer], groups: Iterable[ParameterGroup]) -> Optimizer:
    """Build an optimizer in which the learning rate of each group is the factory's times its ``lr_factor``.

    Args:
        factory: function from groups to an optimizer, such as ``functools.partial(torch.optim.SGD, lr=0.02)``.
        groups: groups from ``parameter_groups``.

    Raises:
        TypeError: if the factory returns something else.
    """
    optimizer = factory([dict(group) for group in groups])
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer factory returned {type(optimizer).__name__}, expected a torch Optimizer")
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group.get("lr_factor", 1.0)
    return optimizer


class ViTLayerDecay:
    """Learning-rate factors that shrink from the head down through a plain vision transformer.

    Lower layers of a pretrained transformer hold general features, which fine-tuning should change less.

    Args:
        decay: factor from one block to the block below it.
        num_layers: number of blocks of the transformer.
        backbone: prefix of the transformer's parameters; all other parameters have factor 1.

    Raises:
        ValueError: if ``decay`` is out of range.

    Source: Bao et al. 2022 (arXiv:2106.08254), used for detection by Li et al. 2022 (arXiv:2203.16527).
    """

    def __init__(self, *, decay: float = 0.7, num_layers: int = 12, backbone: str = "backbone.") -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"decay must lie in (0, 1], got {decay}")
        self.decay = decay
        self.num_layers = num_layers
        self.backbone = backbone

    def __call__(self, name: str) -> float:
        """Return the factor of the parameter called ``name``."""
        depth = self.num_layers + 1
        if name.startswith(self.backbone):
            if ".pos_embed" in name or ".patch_embed" in name:
                depth = 0
            elif ".blocks." in name and ".residual." not in name:
                depth = int(name.split(".blocks.")[1].split(".")[0]) + 1
        return self.decay ** (self.num_layers + 1 - depth)


def _check_overrides(overrides: Mapping[str, Mapping[str, float]]) -> None:
    for pattern, settings in overrides.items():
        unknown = set(settings) - set(SETTINGS)
        if unknown:
            raise ValueError(
                f"override {pattern!r}: unknown setting {sorted(unknown)}, expected {list(SETTINGS)}"
            )


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name if "*" in pattern or "." in pattern else name.rpartition(".")[2], pattern)


def _is_norm(module: nn.Module) -> bool:
    norms = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm | nn.LocalResponseNorm | nn.RMSNorm
    if isinstance(module, norms):
        return True
    # Norms of other libraries by name. hydet's own that are no norm of torch decay, as in the published recipes.
    return "Norm" in type(module).__name__ and not type(module).__module__.startswith("hydet.")
