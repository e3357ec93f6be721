"""Every published configuration, as the reference describes it: weights, arguments, and how long it learns."""

import functools
import gzip
import inspect
import json
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

import hydet
import hydet.modeling

GOLDENS = Path(__file__).parents[1] / "parity" / "goldens"
TREE = Path(__file__).parents[2] / "conf" / "experiment"


def golden(name):
    with gzip.open(GOLDENS / name, "rt") as file:
        return json.load(file)


FACTS = golden("zoo_facts.json.gz")
STATE_DICTS = golden("state_dicts.json.gz")
PUBLISHED = sorted(FACTS["configs"])


def experiment_of(path):
    """``configs/COCO-Detection/x.yaml`` -> ``COCO-Detection/x``; ``projects/ViTDet/configs/COCO/x.py`` likewise."""
    folder, _, rest = path.rpartition(".")[0].partition("/")
    return rest if folder == "configs" else rest.replace("/configs", "", 1)


@functools.cache
def composed(name):
    return hydet.compose(f"experiment={name}")


@functools.cache
def inventory(name):
    with torch.device("meta"):
        model = hydet.instantiate(composed(name).model)
    weights = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in model.state_dict().items()}
    return weights, sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_every_published_configuration_has_a_file_and_every_file_is_one():
    files = {str(p.relative_to(TREE).with_suffix("")) for p in TREE.rglob("*.yaml")}
    assert {f for f in files if not f.startswith("common/")} == {experiment_of(p) for p in PUBLISHED}


@pytest.mark.filterwarnings("ignore:.*federated loss")
@pytest.mark.parametrize("path", PUBLISHED)
def test_weights_have_the_published_names_shapes_and_types(path):
    wanted = STATE_DICTS["configs"][path]
    weights, trainable = inventory(experiment_of(path))
    assert weights == {
        name: (shape, dtype) for name, shape, dtype in STATE_DICTS["inventories"][wanted["inventory"]]
    }
    assert trainable == wanted["trainable"]


@pytest.mark.parametrize("path", PUBLISHED)
def test_arguments_are_the_published_ones(path):
    ours = OmegaConf.to_container(composed(experiment_of(path)).model, resolve=True)
    assert list(differences(FACTS["configs"][path]["model"], expand(ours), "model")) == []


def expand(node):
    """Lists and numbers in place of the calls that make them."""
    if isinstance(node, list):
        return [expand(n) for n in node]
    if not isinstance(node, dict):
        return node
    node = {k: expand(v) for k, v in node.items()}
    if node.get("_target_") == "hydet.modeling.make_each":
        common = {k: v for k, v in node["make"].items() if k != "_partial_"}
        return [{**common, **each} for each in node["each"]]
    if node.get("_target_") == "hydet.modeling.resnet_channels":
        return hydet.modeling.resnet_channels(**{k: v for k, v in node.items() if k != "_target_"})
    return node


NOT_COMPARED = {
    "_partial_", "out_features", "height", "width",  # the first only saves work; sizes follow from the poolers
    "stem", "stages", "res5",                        # the state dicts tell; see differences_of_resnets for the rest
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
            mine = got.get(key) if isinstance(got, dict) else got  # one loss weight stands for all
            yield from differences(value, mine, f"{where}.{key}")
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
    found = {}
    for part in classes:
        function = part.__dict__.get("__init__") if inspect.isclass(part) else part
        if callable(function) and part is not object:
            for name, parameter in inspect.signature(function).parameters.items():
                if parameter.default is not parameter.empty:
                    found[name] = parameter.default
    return found


def short(target):
    return target.rpartition(".")[2]


@pytest.mark.parametrize("path", PUBLISHED)
def test_it_learns_as_long_and_as_fast_as_published(path):
    cfg, facts = composed(experiment_of(path)), FACTS["configs"][path]
    wanted = solver_of(facts)
    warmup = cfg.schedule.warmup_steps
    milestones = [
        m if isinstance(m, int) else round(m * cfg.trainer.max_steps) for m in cfg.schedule.milestones
    ]
    assert cfg.trainer.max_steps == wanted["steps"]
    assert milestones == wanted["milestones"]
    assert warmup == pytest.approx(wanted["warmup"], abs=0.5)
    assert cfg.schedule.get("warmup_factor", 0.001) == wanted["factor"]
    assert cfg.batch_size == wanted["batch"]
    assert cfg.optimizer.lr == pytest.approx(wanted["lr"] * 16 / wanted["batch"])
    assert cfg.optimizer.weight_decay == wanted["decay"]
    assert cfg.parameter_groups.norm_weight_decay == wanted["norm_decay"]


def solver_of(facts):
    if "differences" in facts:
        solver = {**FACTS["defaults"]["SOLVER"], **facts["differences"].get("SOLVER", {})}
        return {
            "steps": solver["MAX_ITER"],
            "milestones": solver["STEPS"],
            "warmup": solver["WARMUP_ITERS"],
            "factor": solver["WARMUP_FACTOR"],
            "batch": solver["IMS_PER_BATCH"],
            "lr": solver["BASE_LR"],
            "decay": solver["WEIGHT_DECAY"],
            "norm_decay": solver["WEIGHT_DECAY_NORM"],
        }
    schedule, steps = facts["lr_multiplier"], facts["train"]["max_iter"]
    return {
        "steps": steps,
        "milestones": [m for m in schedule["scheduler"]["milestones"] if m < steps],
        "warmup": schedule["warmup_length"] * steps,
        "factor": schedule["warmup_factor"],
        "batch": facts["dataloader"]["train"]["total_batch_size"],
        "lr": facts["optimizer"]["lr"],
        "decay": facts["optimizer"]["weight_decay"],
        "norm_decay": facts["optimizer"]["params"]["weight_decay_norm"],
    }


@pytest.mark.parametrize("path", PUBLISHED)
def test_images_have_the_published_sizes(path):
    augment, facts = composed(experiment_of(path)).augment, FACTS["configs"][path]
    train, test = sizes_of(facts)
    assert (augment.test.resize.short, augment.test.resize.max_size) == test
    if train is None:
        assert list(augment.train.resize["size"]) == [1024, 1024]
    else:
        short_sides = augment.train.resize.short
        short_sides = [short_sides] if isinstance(short_sides, int) else list(short_sides)
        assert (short_sides, augment.train.resize.max_size) == train


def sizes_of(facts):
    if "differences" in facts:
        image = {**FACTS["defaults"]["INPUT"], **facts["differences"].get("INPUT", {})}
        train = (list(image["MIN_SIZE_TRAIN"]), image["MAX_SIZE_TRAIN"])
        return train, (image["MIN_SIZE_TEST"], image["MAX_SIZE_TEST"])
    loaders = facts["dataloader"]
    resizes = [
        a for a in loaders["train"]["mapper"]["augmentations"] if short(a["_target_"]) == "ResizeShortestEdge"
    ]
    test = loaders["test"]["mapper"]["augmentations"][0]
    train = (resizes[0]["short_edge_length"], resizes[0]["max_size"]) if resizes else None
    return train, (test["short_edge_length"], test["max_size"])
