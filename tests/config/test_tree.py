"""Every choice that ``conf/`` offers composes and builds."""

import copy
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import hydet

TREE = Path(__file__).parents[2] / "conf"
MODELS = sorted(p.stem for p in (TREE / "model").glob("*.yaml"))
BACKBONES = sorted(p.stem for p in (TREE / "backbone").glob("*.yaml"))
BASIC = {"r18", "r18_slim", "r34"}  # ResNets without bottlenecks, hence without dilation
RESNETS = {b for b in BACKBONES if b[0] in "rx" and b[1].isdigit()}
PLAIN = {b for b in BACKBONES if b.startswith("vitdet")}  # one map of stride 16
SEMANTIC = {"semantic_fpn", "panoptic_fpn", "panoptic_cascade_fpn"}
WHOLE = {"mmdet"}  # models with a backbone inside


def skip_without_library(*choices):
    """Options of this name compose without the library of this name, but are not built."""
    if "mmdet" in choices:
        pytest.importorskip("mmdet")


def fits(model, backbone):
    """Which backbones a model can stand on."""
    if model in WHOLE:
        return False
    if "dc5" in model:
        return backbone in RESNETS - BASIC
    if "c4" in model:
        return backbone in RESNETS
    return backbone not in PLAIN or "vitdet" in model


def pairs():
    """Every backbone below one model of each kind, and the other models on two ResNets."""
    some = {"faster_rcnn_fpn", "retinanet", "mask_rcnn_c4", "mask_rcnn_dc5", "mask_rcnn_vitdet"}
    two = {"r34", "x101_32x8d"}
    return [(m, b) for m in MODELS for b in BACKBONES if fits(m, b) and (m in some or b in two)]


@pytest.fixture(scope="module")
def composed():
    """Composition takes longer than building, so each choice is composed once and the two are joined."""
    models = {m: hydet.compose(f"model={m}", f"data={data_of(m, 'coco')}") for m in MODELS}
    backbones = {b: hydet.compose(f"backbone={b}", "data=coco_instance") for b in BACKBONES}
    return models, backbones


def data_of(model, kind):
    if kind == "coco":
        return "coco_panoptic" if model in SEMANTIC else "coco_instance"
    return "shapes_panoptic" if model in SEMANTIC else "shapes"


@pytest.mark.parametrize(("model", "backbone"), pairs())
def test_every_model_builds_on_the_backbones_it_fits(model, backbone, composed, meta):
    skip_without_library(model, backbone)
    models, backbones = composed
    cfg = copy.deepcopy(models[model])
    variant = {"out_features": cfg.backbone.get("out_features")} if "dc5" in model or "c4" in model else {}
    if "dc5" in model:
        variant["res5_dilation"] = 2
    cfg.backbone = OmegaConf.create({**backbones[backbone].backbone, **variant})
    cfg.features = backbones[backbone].features
    with meta():
        built = hydet.instantiate(cfg.model)
    assert sum(p.numel() for p in built.parameters()) > 5e5
    assert all(p.is_meta for p in built.parameters())


@pytest.mark.parametrize("backbone", ["r101", "regnetx_4gf", "swin_t"])
def test_backbones_are_chosen_on_the_command_line(backbone, meta):
    cfg = hydet.compose("model=retinanet", f"backbone={backbone}", "data=coco_instance")
    with meta():
        hydet.instantiate(cfg.model)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_builds_slim(model, meta):
    skip_without_library(model)
    backbone = ["backbone=r50_slim"] if "dc5" in model else []  # a ResNet-18 cannot be dilated
    with meta():
        hydet.instantiate(
            hydet.compose(f"model={model}", f"data={data_of(model, 'shapes')}", *backbone).model
        )


@pytest.mark.parametrize("file", sorted(TREE.rglob("*.yaml")), ids=lambda p: str(p.relative_to(TREE)))
def test_every_file_is_yaml_and_says_what_it_is(file):
    text = file.read_text()
    assert text.startswith("#"), "the first line says what the option is"
    assert isinstance(yaml.safe_load(text), dict | type(None))


def groups(name):
    return sorted(p.stem for p in (TREE / name).glob("*.yaml"))


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (g, o)
        for g in ("data", "augment", "optimizer", "schedule", "trainer", "logger", "size")
        for o in groups(g)
    ],
)
def test_every_option_composes(group, option):
    hydet.compose(f"{group}={option}")
