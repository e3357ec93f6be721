"""Every option in ``conf/`` composes and builds."""

import copy
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import hydet
from hydet.cli import train

TREE = Path(__file__).parents[2] / "conf"
MODELS = sorted(p.stem for p in (TREE / "model").glob("*.yaml"))
BACKBONES = sorted(p.stem for p in (TREE / "backbone").glob("*.yaml"))
RESNETS = {b for b in BACKBONES if b[0] in "rx" and b[1].isdigit()}
PLAIN = {b for b in BACKBONES if b.startswith("vitdet")}  # one feature map, of stride 16
SEMANTIC = {"semantic_fpn", "panoptic_fpn", "panoptic_cascade_fpn"}
WITH_OWN_BACKBONE = {"mmdet"}


def skip_without_library(*choices):
    """Options of this name compose without the library of this name, but are not built."""
    if "mmdet" in choices:
        pytest.importorskip("mmdet")


def fits(model, backbone):
    """Return True if the model accepts the feature maps of the backbone."""
    if model in WITH_OWN_BACKBONE:
        return False
    if "dc5" in model or "c4" in model:
        return backbone in RESNETS
    return backbone not in PLAIN or "vitdet" in model


def pairs():
    """Return every backbone with one model of each kind, and the other models with two ResNets."""
    one_of_each_kind = {"faster_rcnn_fpn", "retinanet", "mask_rcnn_c4", "mask_rcnn_dc5", "mask_rcnn_vitdet"}
    two_resnets = {"r34", "x101_32x8d"}
    return [
        (m, b)
        for m in MODELS
        for b in BACKBONES
        if fits(m, b) and (m in one_of_each_kind or b in two_resnets)
    ]


@pytest.fixture(scope="module")
def composed():
    """Compose each choice once, as composition takes longer than building; the test joins two of them."""
    models = {
        m: hydet.compose(f"model={m}", f"data={'coco_panoptic' if m in SEMANTIC else 'coco_instance'}")
        for m in MODELS
    }
    backbones = {b: hydet.compose(f"backbone={b}", "data=coco_instance") for b in BACKBONES}
    return models, backbones


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


# Without a preset, each model is built above, with the files of COCO.
@pytest.mark.parametrize(
    ("model", "preset"),
    [(model, "auto") for model in MODELS] + [("mask_rcnn_fpn", "none"), ("panoptic_fpn", "none")],
)
def test_every_model_builds_with_nothing_else_given(model, preset, meta):
    skip_without_library(model)
    config = hydet.compose(f"model={model}", f"preset={preset}")
    with meta():
        hydet.instantiate(config.model)


@pytest.mark.parametrize("model", ["faster_rcnn_dc5", "mask_rcnn_dc5", "fast_rcnn_fpn"])
def test_model_trains_one_step_with_nothing_else_given(model, tmp_path, capsys):
    small = ["trainer.max_steps=1", "batch_size=2", "data.train.num_images=2", "data.val.num_images=1"]
    arguments = [f"model={model}", *small, "num_workers=0", "logger=console", f"output_dir={tmp_path}"]
    assert train.main(arguments) == 0, capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(TREE.rglob("*.yaml")), ids=lambda p: str(p.relative_to(TREE)))
def test_every_file_is_yaml_and_starts_with_a_description(file):
    text = file.read_text(encoding="utf-8")
    assert text.startswith("#"), "the first line says what the option is"
    assert isinstance(yaml.safe_load(text), dict | type(None))


def groups(name):
    return sorted(p.stem for p in (TREE / name).glob("*.yaml"))


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (g, o)
        for g in (
            "data",
            "augment",
            "optimizer",
            "schedule",
            "trainer",
            "logger",
            "size",
            "preset",
            "sampler",
            "evaluators",
        )
        for o in groups(g)
    ],
)
def test_every_option_composes(group, option):
    # A preset that the data option chooses costs a second composition.
    hydet.compose(f"{group}={option}", *([] if group in ("data", "preset") else ["preset=none"]))
