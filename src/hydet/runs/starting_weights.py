"""The weights that training starts from: those of the published recipe, and what stays random without any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

from hydet.config import ConfigError, compose
from hydet.interop.recipes import find_recipe, is_recipe, recipe
from hydet.layers import FrozenBatchNorm2d

from .build import plain

__all__ = ["OF_RECIPE", "describe_random_parts", "known_class_names", "recipe_weights"]

OF_RECIPE = "recipe"  # init_from=recipe
# Parts that can load weights by themselves -> the argument that does so; None if it depends on other libraries.
_LOADING_ARGUMENTS: Mapping[str, str | None] = {
    "hydet.modeling.TimmBackbone": "pretrained",
    "hydet.modeling.TorchvisionBackbone": "weights",
    "hydet.modeling.MMDetBackbone": None,
    "hydet.modeling.MMDetDetector": None,
}


def recipe_weights(experiment: str | None) -> str:
    """Return the source of the weights that a published recipe starts from, for ``init_from``.

    Args:
        experiment: the option ``experiment`` of the run, or None.

    Raises:
        ConfigError: if it is not a published recipe, or no such weights are known.
    """
    if experiment is None or not is_recipe(experiment):
        chosen = "no experiment is chosen" if experiment is None else f"experiment={experiment} is not one"
        raise ConfigError(
            f"init_from=recipe takes the weights of a published recipe, and {chosen}; experiment=RECIPE chooses one, "
            "init_from=SOURCE names weights"
        )
    source = recipe(experiment).starts_from
    if source is None:
        raise ConfigError(
            f"init_from=recipe: no weights are known that {experiment} starts from; init_from=SOURCE names weights, "
            "init_from=null starts from random ones"
        )
    return source


def known_class_names(source: str | Path) -> tuple[str, ...]:
    """Return the class names of the trained model of a published recipe; empty for other sources.

    Args:
        source: see ``hydet.interop.recipes.find_recipe``.
    """
    match = find_recipe(source)
    return () if match is None else tuple(compose(*match.overrides).data.get("class_names") or ())


def describe_random_parts(config: DictConfig, model: nn.Module, experiment: str | None) -> str | None:
    """Return a line about frozen parts of a model that keep random weights, or None if there are none.

    Args:
        config: config of a run that starts without ``init_from``.
        model: its model.
        experiment: the option ``experiment`` of the run, or None.
    """
    if _may_load_weights(plain(config).get("model")):
        return None
    norms = sum(isinstance(m, FrozenBatchNorm2d | TorchvisionFrozenBatchNorm2d) for m in model.modules())
    parameters = [p for p in model.parameters() if not p.requires_grad]
    if not norms and not parameters:
        return None
    frozen = [f"{norms} frozen norms"] * bool(norms) + [f"{len(parameters)} frozen weights"] * bool(
        parameters
    )
    source = recipe(experiment).starts_from if experiment is not None and is_recipe(experiment) else None
    remedy = "init_from=SOURCE names weights" if source is None else f"init_from=recipe starts from {source}"
    return (
        f"training from scratch: {' and '.join(frozen)} keep their random weights, since init_from is null; {remedy}, "
        "norm=BN freeze_at=0 freezes nothing"
    )


def _may_load_weights(node: object) -> bool:
    """Return True if a part of the model may load weights by itself."""
    if isinstance(node, list):
        return any(map(_may_load_weights, node))
    if not isinstance(node, Mapping):
        return False
    if node.get("_target_") in _LOADING_ARGUMENTS:
        argument = _LOADING_ARGUMENTS[node["_target_"]]
        return argument is None or bool(node.get(argument))
    return any(map(_may_load_weights, node.values()))
