"""Names of the objects that a config which came with a checkpoint may build.

A checkpoint can come from a stranger, and each ``_target_`` in its config names something to call. Trust therefore
goes to names, never to packages: a package also holds functions that write files, download, or call other targets.

The sections of a stored config may build:

- ``model``: classes of ``hydet.modeling``, ``hydet.layers`` and ``torch.nn`` that derive from ``torch.nn.Module``, and
  the factories and plain classes that ``conf/`` uses in models;
- ``augment``: transforms of ``hydet.data`` and ``torchvision.transforms.v2``;
- ``data`` and ``evaluators``: the datasets and evaluators that ``conf/`` uses;
- each: the names below the prefixes that the user adds with ``allow=[...]``.

Such a config can still do the following:

- Read files. A dataset opens the annotation file and the images that its arguments name, ``frequency_weights`` reads a
  JSON file, and proposals come from ``.npz``, ``.json`` or ``.pkl`` files. They are parsed, never executed (pickles go
  through ``hydet.data.proposals.array_pickle``), and their content only goes into metrics and error messages. No
  trusted name takes the path of an output.
- Use memory and time, for example with a layer of a billion channels. The process then ends with an error.

Nothing is downloaded, because the weights come from the checkpoint: ``disarm`` removes the arguments that make timm or
torchvision load pretrained weights. mmdet builds classes from names in its own configs and can load pickled files, so
its wrappers need ``allow=[mmdet]``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import hydra.utils
from torch import nn
from torchvision.transforms import v2

from hydet.config import ConfigError, TargetCheck
from hydet.config.instantiation import is_below

__all__ = ["NEEDS_PERMISSION", "NEVER_BUILT", "TRUSTED_TARGETS", "disarm", "trusted"]

# Section of the config -> targets of conf/ in it that no package in _EXPORTING covers: factories, plain classes, datasets
# and evaluators. tests/runs/test_trusted_targets.py compares the lists with conf/.
TRUSTED_TARGETS: Mapping[str, frozenset[str]] = {
    "model": frozenset(
        {
            "hydet.data.frequency_weights",
            "hydet.layers.ShapeSpec",
            "hydet.modeling.Box2BoxTransform",
            "hydet.modeling.Box2BoxTransformLinear",
            "hydet.modeling.Box2BoxTransformRotated",
            "hydet.modeling.Matcher",
            "hydet.modeling.ResNet.make_default_stages",
            "hydet.modeling.ResNet.make_stage",
            "hydet.modeling.channels_at_stride",
            "hydet.modeling.make_each",
            "hydet.modeling.make_resnet",
            "hydet.modeling.resnet_channels",
        }
    ),
    "augment": frozenset(),
    "data": frozenset({"hydet.data.CocoDataset", "hydet.data.ShapesDataset"}),
    "evaluators": frozenset(
        {
            "hydet.evaluation.CocoEvaluator",
            "hydet.evaluation.LvisEvaluator",
            "hydet.evaluation.PanopticEvaluator",
            "hydet.evaluation.ProposalEvaluator",
            "hydet.evaluation.RotatedCocoEvaluator",
            "hydet.evaluation.SemanticEvaluator",
        }
    ),
}

# Targets of conf/ that are built from the user's own config only, never from a stored one.
NEVER_BUILT = frozenset(
    {
        "hydet.cli.sweep.SweepTable",
        "hydet.data.make_repeat_factor_sampler",
        "hydet.data.make_shuffle_sampler",
        "hydet.engine.ViTLayerDecay",
        "hydet.engine.callbacks.Checkpoints",
        "hydet.engine.callbacks.ConsoleLog",
        "hydet.engine.callbacks.JsonlLog",
        "hydet.engine.callbacks.NanGuard",
        "hydet.engine.callbacks.PreciseBatchNorm",
        "hydet.engine.callbacks.PredictionImages",
        "hydet.engine.callbacks.TensorBoardLog",
        "hydet.engine.callbacks.TrainingImages",
        "hydet.engine.constant",
        "hydet.engine.parameter_groups",
        "hydet.engine.warmup_cosine",
        "hydet.engine.warmup_multistep",
        "torch.optim.AdamW",
        "torch.optim.SGD",
    }
)

# Targets that hand names in their arguments to another library, and the package that allow=[...] must contain.
NEEDS_PERMISSION: Mapping[str, str] = {
    "hydet.modeling.MMDetBackbone": "mmdet",
    "hydet.modeling.MMDetDetector": "mmdet",
}

# Section -> packages from which it may build every exported class that derives from a base class and is defined in the
# given package.
_EXPORTING: Mapping[str, Mapping[str, tuple[type, str]]] = {
    "model": {
        "hydet.modeling": (nn.Module, "hydet.modeling"),
        "hydet.layers": (nn.Module, "hydet.layers"),
        "torch.nn": (nn.Module, "torch.nn.modules"),
    },
    "augment": {
        "hydet.data": (v2.Transform, "hydet.data"),
        "torchvision.transforms.v2": (v2.Transform, "torchvision.transforms.v2"),
    },
    "data": {},
    "evaluators": {},
}


def trusted(section: str, allow: Sequence[str] = ()) -> TargetCheck:
    """Return the check of targets for one section of a stored config.

    Args:
        section: ``"model"``, ``"augment"``, ``"data"`` or ``"evaluators"``.
        allow: prefixes of importable names that the user trusts as well.

    Raises:
        ConfigError: if a prefix is not a dotted name.
    """
    for prefix in allow:
        if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", prefix):
            raise ConfigError(f"allow={prefix!r} is not the name of a package")
    prefixes = tuple(allow)

    def check(target: object) -> str | None:
        if not isinstance(target, str):
            return "is not a name"
        package = NEEDS_PERMISSION.get(target)
        if package is not None:
            return None if {package, target} & set(prefixes) else _advice(section, package)
        if target in TRUSTED_TARGETS[section] or _is_exported_part(section, target):
            return None
        # Names are compared before anything is imported, because importing a module runs it.
        if not is_below(target, prefixes):
            return _advice(section, target.split(".")[0])
        imported = _import(target)
        module = str(getattr(imported, "__module__", None))
        if is_below(module, prefixes) or any(
            _is_part(imported, *rule) for rule in _EXPORTING[section].values()
        ):
            return None
        return _advice(section, module.split(".")[0])

    return check


def _advice(section: str, package: str) -> str:
    advice = f"is outside of what the section {section!r} of a stored config may build"
    if re.fullmatch(r"[A-Za-z_]\w{0,60}", package) and package not in ("builtins", "hydet", "posix", "nt"):
        advice += f"; if you trust it, allow=[{package}]"
    return advice


def _is_exported_part(section: str, target: str) -> bool:
    """Return True if one of the section's packages exports this name, and it is a module or transform."""
    package, _, name = target.rpartition(".")
    if package not in _EXPORTING[section] or name.startswith("_"):
        return False
    exported = import_module(package)
    if name not in getattr(exported, "__all__", dir(exported)):
        return False
    return _is_part(getattr(exported, name, None), *_EXPORTING[section][package])


def _is_part(value: object, base: type, package: str) -> bool:
    """Return True for a class that derives from ``base`` and is defined in ``package``."""
    return inspect.isclass(value) and issubclass(value, base) and is_below(value.__module__, [package])


def _import(target: str) -> Any:
    try:
        return hydra.utils.get_object(target)
    except Exception as error:  # importing can raise anything
        raise ConfigError(f"_target_ {target} cannot be imported: {error}") from error


def disarm(config: Any, path: str = "") -> None:
    """Remove from a stored config, in place, what makes timm and torchvision load files or download weights.

    A model that is built from a checkpoint takes all its weights from there, so ``pretrained`` and ``weights`` have no
    effect on it.

    Args:
        config: a section of the config as plain containers.
        path: its key in the whole config.

    Raises:
        ConfigError: if an argument cannot be left out and could read a file or run code; names the key.
    """
    for key, node, parent in _mappings(config, path, None):
        target = node.get("_target_")
        if target not in (_TIMM, _TORCHVISION):
            continue
        # A partial takes further arguments where it is called; channels_at_stride calls it without any.
        late = node.get("_partial_") and not (parent is not None and parent.get("_target_") == _CHANNELS)
        if late or node.get("_args_"):
            raise ConfigError(
                f"{key}: a stored config may not build {target} with arguments that come later or without names"
            )
        _disarm_backbone(node, key)


_TIMM = "hydet.modeling.TimmBackbone"
_TORCHVISION = "hydet.modeling.TorchvisionBackbone"
_CHANNELS = "hydet.modeling.channels_at_stride"
# Arguments of timm.create_model and torchvision.models.get_model that name files, addresses or functions.
_LOADING_OPTIONS = re.compile(
    r"(pretrained|checkpoint|cache|weights|kwargs_filter|feature_cfg|model_cfg|scriptable).*"
)


def _disarm_backbone(node: dict[str, Any], key: str) -> None:
    node.pop("pretrained", None)
    node.pop("weights", None)
    options = node.get("model_options") or {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ConfigError(f"{key}.model_options must be a mapping with names, got {type(options).__name__}")
    for name in options:
        if _LOADING_OPTIONS.fullmatch(name):
            raise ConfigError(f"{key}.model_options.{name}: a stored config may not load files or weights")
    if node["_target_"] == _TORCHVISION:
        _check_torchvision(node, key)


def _check_torchvision(node: Mapping[str, Any], key: str) -> None:
    from torchvision import models

    name = node.get("model_name")
    if name is not None:
        try:
            builder = models.get_model_builder(name)
        except Exception as error:  # the name can have any type
            raise ConfigError(f"{key}.model_name: torchvision has no network {name!r}") from error
        # Builders of whole detectors download weights of their backbone by default.
        if "weights_backbone" in inspect.signature(builder).parameters:
            raise ConfigError(f"{key}.model_name: {name} is not a classification network")
    nodes = node.get("return_nodes")
    if nodes is None:
        return
    if node.get("model") is not None:
        # torch.fx writes Python code that contains the names of a network's modules.
        raise ConfigError(f"{key}: a stored config may not trace (return_nodes) a network of its own (model)")
    names = [*nodes, *nodes.values()] if isinstance(nodes, Mapping) else nodes
    if not isinstance(names, list) or not all(
        isinstance(n, str) and re.fullmatch(r"[\w.]+", n) for n in names
    ):
        raise ConfigError(f"{key}.return_nodes: names consist of letters, digits, '_' and '.'")


def _mappings(
    node: Any, path: str, parent: dict[str, Any] | None
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Yield each mapping with its key and the mapping that holds it."""
    if isinstance(node, dict):
        yield path, node, parent
        for key, value in node.items():
            yield from _mappings(value, f"{path}.{key}" if path else str(key), node)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _mappings(value, f"{path}[{i}]", None)
