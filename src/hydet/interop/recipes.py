"""The published recipes: which weights each of them trained, which ones it starts from, and what was reported."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath

from hydet.data import DataError

__all__ = ["Recipe", "find_recipe", "is_recipe", "recipe", "recipes"]


@dataclass(frozen=True)
class Recipe:
    """A published configuration.

    Attributes:
        name: its name, which is also that of its option in ``conf/experiment``.
        overrides: Hydra overrides of ``hydet.compose(config_name="train")`` that select it.
        url: address of its trained model, or None if none was published.
        starts_from: source of the weights that its training starts from, for ``find_weights``; None if it starts from
            random weights or the source is not known.
        published: reported numbers by name, such as ``box_AP`` in percent.
    """

    name: str
    overrides: tuple[str, ...]
    url: str | None
    starts_from: str | None
    published: Mapping[str, float] = field(default_factory=dict)


def recipe(name: str) -> Recipe:
    """Return the recipe with a name.

    Args:
        name: such as ``"COCO-Detection/retinanet_R_50_FPN_3x"``; ``.yaml`` or ``.py`` may follow.

    Raises:
        DataError: if there is none; the message names the nearest one.
    """
    match = recipes().get(_without_suffix(name))
    if match is None:
        near = difflib.get_close_matches(_without_suffix(name), recipes(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{name!r} is not the name of a published recipe{hint}")
    return match


def is_recipe(name: str) -> bool:
    """Return True if a published recipe has this name."""
    return _without_suffix(name) in recipes()


def find_recipe(source: str | Path) -> Recipe | None:
    """Return the recipe whose trained model a source is, or None.

    Args:
        source: name of a recipe, address of a trained model, or a copy of its file. The file is known by its name, which
            differs for every recipe.
    """
    if isinstance(source, str) and is_recipe(source):
        return recipe(source)
    return _by_file_name().get(PurePath(str(source).partition("?")[0]).name)


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return all recipes by name, sorted."""
    content = json.loads(files("hydet.interop").joinpath("model_zoo.json").read_text(encoding="utf-8"))
    models, starts_from = content["models"], content["starts_from"]
    return {
        name: Recipe(
            name=name,
            overrides=(f"experiment={name}",),
            url=content["prefix"] + models[name]["file"] if name in models else None,
            starts_from=starts_from.get(name),
            published=models.get(name, {}).get("published", {}),
        )
        for name in sorted({*models, *starts_from})
    }


@cache
def _by_file_name() -> Mapping[str, Recipe]:
    return {PurePath(r.url).name: r for r in recipes().values() if r.url is not None}


def _without_suffix(name: str) -> str:
    return name.removesuffix(".yaml").removesuffix(".py")
