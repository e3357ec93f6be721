"""Published configurations: files, state dicts and arguments of the models."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

import hydet.interop

TREE = Path(__file__).parents[2] / "conf" / "experiment"


def test_every_published_configuration_has_a_file_and_every_file_is_one(recipes):
    files = {str(p.relative_to(TREE).with_suffix("")) for p in TREE.rglob("*.yaml")}
    assert {f for f in files if not f.startswith("common/")} == {recipe.name for recipe in recipes}


def test_every_recipe_of_the_catalog_is_a_published_configuration(recipes):
    published = {recipe.name: recipe.config for recipe in recipes}  # composed from experiment=NAME
    for r in hydet.interop.recipes().values():
        assert r.overrides == (f"experiment={r.name}",) and "_target_" in published[r.name].model
    missing = published.keys() - hydet.interop.recipes().keys()
    assert missing == {"new_baselines/mask_rcnn_R_50_FPN_50ep_LSJ"}  # no file of it was published


@pytest.mark.filterwarnings("ignore:.*federated loss")
def test_weights_have_the_published_names_shapes_and_types(recipe, goldens):
    published = goldens("state_dicts.json.gz")
    wanted = published["configs"][recipe.path]
    assert recipe.inventory.weights == {
        name: (shape, dtype) for name, shape, dtype in published["inventories"][wanted["inventory"]]
    }
    assert recipe.inventory.num_trainable == wanted["trainable"]


def test_arguments_are_the_published_ones(recipe):
    ours = OmegaConf.to_container(recipe.config.model, resolve=True)
    assert list(differences(recipe.facts["model"], expand(ours), "model")) == []


def expand(node):
    """Replace calls of ``make_each`` by the lists that they make."""
    if isinstance(node, list):
        return [expand(n) for n in node]
    if not isinstance(node, dict):
        return node
    node = {k: expand(v) for k, v in node.items()}
    if node.get("_target_") == "hydet.modeling.make_each":
        common = {k: v for k, v in node["make"].items() if k != "_partial_"}
        return [{**common, **each} for each in node["each"]]
    return node


NOT_COMPARED = {
    "_partial_", "out_features",     # these do not change what the model computes
    "input_shape", "in_channels",    # here they come from the backbone; the state dicts are compared
    "stem", "stages", "res5",        # the state dicts are compared; see differences_of_resnets for the rest
}  # fmt: skip


def differences(wanted, got, where):
    if isinstance(wanted, dict) and "_lambda_" in wanted:
        text = wanted["_lambda_"]
        used = "not used" not in text
        if (got is not None) != used or ("NaiveSync" in text and "NaiveSync" not in str(got)):
            yield f"{where}: wanted {text}, got {got}"
    elif isinstance(wanted, dict) and "_target_" in wanted:
        yield from differences_of_calls(wanted, got, where)
    elif isinstance(wanted, dict):
        for key, value in wanted.items():
            value_here = got.get(key) if isinstance(got, dict) else got  # one loss weight for all losses
            yield from differences(value, value_here, f"{where}.{key}")
    elif isinstance(wanted, list) and isinstance(got, list | tuple):
        if wanted and got and isinstance(got[0], list) and not isinstance(wanted[0], list):
            wanted = [wanted]  # aspect ratios that all levels share
        if len(wanted) != len(got):
            yield f"{where}: wanted {wanted}, got {got}"
        for i, (a, b) in enumerate(zip(wanted, got, strict=False)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(wanted, str) and wanted.startswith("detectron2."):
        if short(wanted) != short(got["_target_"]):
            yield f"{where}: wanted {wanted}, got {got['_target_']}"
    elif (wanted or None) != (got or None) and wanted != got:
        yield f"{where}: wanted {wanted!r}, got {got!r}"


def differences_of_calls(wanted, got, where):
    if not isinstance(got, dict) or "_target_" not in got:
        yield f"{where}: wanted {wanted['_target_']}, got {got!r}"
        return
    if short(got["_target_"]) == "make_resnet":
        yield from differences_of_resnets(wanted, got, where)
        return
    if short(wanted["_target_"]) != short(got["_target_"]):
        yield f"{where}: wanted {wanted['_target_']}, got {got['_target_']}"
        return
    defaults = defaults_of(get_object(got["_target_"]))
    for key, value in wanted.items():
        if key == "_target_" or key in NOT_COMPARED or (key == "stride" and key not in got):
            continue
        if key == "get_fed_loss_cls_weights" and not wanted.get("use_fed_loss"):
            continue
        yield from differences(value, got.get(key, defaults.get(key)), f"{where}.{key}")


def differences_of_resnets(wanted, got, where):
    stages = wanted["stages"]
    stages = [stages] if isinstance(stages, dict) else stages
    facts = {
        "freeze_at": wanted.get("freeze_at", 0),
        "norm": wanted["stem"]["norm"],
        "stride_in_1x1": stages[-1].get("stride_in_1x1", True),
        "res5_dilation": stages[-1].get("dilation", 1),
        "deform_modulated": stages[-1].get("deform_modulated", False),
    }
    defaults = defaults_of(get_object(got["_target_"]))
    for key, value in facts.items():
        yield from differences(value, got.get(key, defaults[key]), f"{where}.{key}")


def defaults_of(made):
    classes = reversed(made.__mro__) if inspect.isclass(made) else [made]
    defaults = {}
    for part in classes:
        function = part.__dict__.get("__init__") if inspect.isclass(part) else part
        if callable(function) and part is not object:
            for name, parameter in inspect.signature(function).parameters.items():
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    return defaults


def short(target):
    return target.rpartition(".")[2]
